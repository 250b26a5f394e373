"""Tells jobs which volumes exist: the proof that storage is billed by.

A claim is proven from when it is first seen bound, so a disk that was never provisioned costs
nothing. It stays bound until it is deleted, and the watch would have told that: it is proven until
the moment up to which every change is known. Called by a `Teller`; wired by `assembly`.
"""

import time
from collections.abc import Callable, Iterable

import msgspec
import redis

from controlplane.cluster import Object
from controlplane.crd.base import OWNER_LABEL
from controlplane.operator.bare.pods import CLASS_ANNOTATION
from controlplane.registry import volumes
from controlplane.registry.volumes import Volume
from controlplane.store import Store

REPEATED_EVERY = 5  # tellings, which come every second
# Records of volumes that are gone stay to be read for so long.
ENDED_SECONDS = 3600.0


def seen(claim: Object, tenant: str, *, earlier: Volume | None, until: float) -> Volume | None:
    """Return what a claim proves; None: nothing, it is not bound, or on its way out.

    Args:
        claim: as the API server told it.
        tenant: whose namespace it is in; empty: nobody's.
        earlier: what was told of it before.
        until: until when every change of claims is known, seconds since 1970 UTC.
    """
    metadata = claim["metadata"]
    owner = metadata.get("labels", {}).get(OWNER_LABEL, "")
    size_gib = _gib(claim)
    bound = claim.get("status", {}).get("phase") == "Bound" and "deletionTimestamp" not in metadata
    if not (bound and owner and tenant and size_gib):
        return None
    if earlier is not None:
        return msgspec.structs.replace(earlier, published_at=max(earlier.published_at, until))
    return Volume(
        uid=metadata["uid"],
        claim=metadata["name"],
        deployment=f"{metadata['namespace']}/{owner}",
        tenant_id=tenant,
        storage_class=metadata.get("annotations", {}).get(CLASS_ANNOTATION, ""),
        size_gib=size_gib,
        alive_since=until,
        published_at=until,
    )


def _gib(claim: Object) -> int:
    requests = claim["spec"].get("resources", {}).get("requests", {})
    number, unit = requests.get("storage", "")[:-2], requests.get("storage", "")[-2:]
    return int(number) if unit == "Gi" and number.isdecimal() else 0


class VolumePublisher:
    """Tells the store of volumes whenever `runtime.telling` asks it to."""

    def __init__(
        self,
        store: Store,
        *,
        claims: Callable[[], Iterable[Object]],
        tenant_of: Callable[[str], str],
        watched_at: Callable[[], float],
    ) -> None:
        """Prepare; the callables read caches and must be quick. `tenant_of` is of a namespace."""
        self._store = store
        self._claims = claims
        self._tenant_of = tenant_of
        self._watched_at = watched_at
        self._told: dict[str, Volume] | None = None  # those that exist; None: not read yet
        self._tellings = 0

    def publish(self) -> bool:
        """Tell every few calls; return whether the store took it."""
        self._tellings += 1
        if self._tellings % REPEATED_EVERY != 1:
            return True
        try:
            if self._told is None:
                self._told = self._read()
            now = self._observe(self._told)
            gone = self._told.keys() - now.keys()
            ends = {uid: msgspec.structs.replace(self._told[uid], ended=True) for uid in gone}
            volumes.TABLE.publish_all(self._store, now | ends)
        except redis.RedisError:
            self._tellings = 0
            return False
        # Only now: an end that was not heard is said again.
        self._told = now
        return True

    def _observe(self, told: dict[str, Volume]) -> dict[str, Volume]:
        # Before the claims: what was deleted after this moment still was there then.
        until = self._watched_at()
        found = {}
        for claim in self._claims():
            uid = claim["metadata"]["uid"]
            tenant = self._tenant_of(claim["metadata"]["namespace"])
            volume = seen(claim, tenant, earlier=told.get(uid), until=until)
            if volume is not None:
                found[uid] = volume
        return found

    def _read(self) -> dict[str, Volume]:
        """Go on with what an earlier operator told; forget what is long gone."""
        found = volumes.TABLE.read(self._store, time.time(), stale_seconds=float("inf"))
        over = [
            it.uid for it in found if it.ended and time.time() - it.published_at > ENDED_SECONDS
        ]
        volumes.TABLE.withdraw(self._store, *over)
        return {it.uid: it for it in found if not it.ended}
