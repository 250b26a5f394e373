"""Who may enter which endpoint now: the live state of GPUEndpoints. Fed by `watching`.

All of it runs on the event loop's thread. Nothing is remembered of an authorization: sessions ask
again whenever something has changed, so a key that was deleted opens nothing and keeps nothing.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from controlplane.cluster import Object, key_of
from controlplane.crd.endpoint import GPUEndpoint

READY = "Ready"


@dataclass(frozen=True)
class Door:
    """One endpoint, as far as entering it goes. `ports` are those that may be forwarded to."""

    namespace: str
    name: str
    uid: str
    tenant: str
    replica: str
    keys: dict[str, str]  # names by SHA-256 fingerprint
    ports: frozenset[int]

    @property
    def pod(self) -> str:
        """The pod that is entered."""
        return f"{self.replica}-0"


@dataclass(frozen=True)
class Grant:
    """That a key opens a door: what a session was let in for."""

    namespace: str
    endpoint: str
    uid: str
    replica: str
    tenant: str
    key: str
    fingerprint: str


class Directory:
    """The doors there are."""

    def __init__(self) -> None:
        self._doors: dict[tuple[str, str], Door] = {}
        self._listeners: set[Callable[[], None]] = set()

    def update(self, body: Object) -> None:
        """Take an endpoint that was made or changed."""
        door = door_of(body)
        if door is None:
            self._doors.pop(key_of(body), None)
        else:
            self._doors[key_of(body)] = door
        self._tell()

    def remove(self, body: Object) -> None:
        """Take it that an endpoint is gone."""
        self._doors.pop(key_of(body), None)
        self._tell()

    def authorize(self, user: str, fingerprint: str) -> Grant | None:
        """Return what a key opens for `user`: `<endpoint>`, or `<endpoint>.<namespace>`.

        An endpoint's name is its tenant's own; among namesakes the key tells which is meant.
        """
        name, _, namespace = user.partition(".")
        for door in self._doors.values():
            if door.name != name or (namespace and door.namespace != namespace):
                continue
            key = door.keys.get(fingerprint)
            if key is not None:
                where = (door.namespace, door.name, door.uid, door.replica, door.tenant)
                return Grant(*where, key, fingerprint)
        return None

    def still(self, grant: Grant) -> bool:
        """Return whether a grant given earlier would be given again, for the same lease."""
        door = self._doors.get((grant.namespace, grant.endpoint))
        if door is None or (door.uid, door.replica) != (grant.uid, grant.replica):
            return False
        return grant.fingerprint in door.keys

    def door(self, grant: Grant) -> Door | None:
        """Return a grant's door while it is open."""
        return self._doors[grant.namespace, grant.endpoint] if self.still(grant) else None

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change; return what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def door_of(body: Object) -> Door | None:
    """Return an endpoint's door; None while nobody may enter it."""
    try:
        endpoint = GPUEndpoint.of(body)
    except ValidationError:
        return None
    spec, status = endpoint.spec, endpoint.status
    if endpoint.deleting or spec.state != "Running" or status.phase != READY:
        return None
    known = ((fingerprint_of(key.public_key), key.name) for key in spec.ssh_keys)
    keys = {fingerprint: name for fingerprint, name in known if fingerprint is not None}
    return Door(
        namespace=endpoint.namespace,
        name=endpoint.name,
        uid=endpoint.uid,
        tenant=spec.tenant,
        replica=status.replica,
        keys=keys,
        ports=frozenset(port.port for port in spec.ports),
    )


def fingerprint_of(line: str) -> str | None:
    """Return a public key's SHA-256 fingerprint; None for what is no key, and opens nothing.

    Args:
        line: `<type> <base64> [comment]`, as in authorized_keys, from a customer. Only hashed: a
            parser may stumble over numbers that are no key, and with it the whole directory.
    """
    words = line.split(maxsplit=2)
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"
