"""The SSH server: who is let in, what they may do there, and when they are put out.

A user name is an endpoint's; an unknown endpoint, a stopped one and a wrong key look the same. A
connection asks for its grant again whenever an endpoint changes, and ends when it is gone.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncssh
from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from controlplane.ssh_gateway.directory import Directory, Grant
from controlplane.ssh_gateway.failures import Failures
from controlplane.ssh_gateway.remote import Remote, RemoteError
from controlplane.ssh_gateway.session import Counts, Session

LOGIN_SECONDS = 20
KEEPALIVE_SECONDS = 30
FORWARD_OPEN_SECONDS = 10
VERSION = "Flashplane"

CONNECTIONS = Gauge("flashplane_ssh_connections", "Connections that are let in")
LOGINS = Metric("flashplane_ssh_logins", "Logins by outcome", ["outcome"])
REVOCATIONS = Metric(
    "flashplane_ssh_revocations", "Connections ended by a change of their endpoint"
)

_log = logging.getLogger("controlplane.ssh_gateway.sessions")


@dataclass(frozen=True)
class Limits:
    """Connections at once; those that have not logged in yet are counted apart.

    Attributes:
        channels: sessions and forwarded ports of one connection; each holds a socket here.
    """

    total: int = 1000
    per_endpoint: int = 32
    waiting: int = 400
    waiting_per_peer: int = 40
    channels: int = 64


@dataclass
class Gatehouse:
    """What all connections share."""

    directory: Directory
    remote: Remote
    limits: Limits = field(default_factory=Limits)
    failures: Failures = field(default_factory=Failures)
    inside: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)

    def has_room(self, grant: Grant) -> bool:
        """Return whether another connection to a grant's endpoint is allowed."""
        within = self.inside.total() < self.limits.total
        return within and self.inside[grant.uid] < self.limits.per_endpoint

    def may_wait(self, peer: str) -> bool:
        """Return whether a peer may open another connection and try to log in."""
        within = self.waiting.total() < self.limits.waiting
        return within and self.waiting[peer] < self.limits.waiting_per_peer


async def listen(
    gatehouse: Gatehouse, host_key: asyncssh.SSHKey, *, host: str, port: int
) -> asyncssh.SSHAcceptor:
    """Begin to listen; close what is returned to end."""
    return await asyncssh.listen(
        host,
        port,
        server_factory=lambda: Connection(gatehouse),
        server_host_keys=[host_key],
        server_version=VERSION,
        encoding=None,
        line_editor=False,  # a container's own terminal does the editing and echoing
        login_timeout=LOGIN_SECONDS,
        keepalive_interval=KEEPALIVE_SECONDS,
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_scp=False,
    )


class Connection(asyncssh.SSHServer):
    """One client."""

    def __init__(self, gatehouse: Gatehouse) -> None:
        self._house = gatehouse
        self._grant: Grant | None = None
        self._inside = False
        self._waits = False
        self._channels = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        peer: tuple[Any, ...] = conn.get_extra_info("peername") or ("",)
        self._peer = str(peer[0])
        self._since = time.monotonic()
        throttled = self._house.failures.too_many(self._peer, self._since)
        if throttled or not self._house.may_wait(self._peer):
            LOGINS.labels("throttled").inc()
            conn.abort()
            return
        self._waits = True
        self._house.waiting[self._peer] += 1

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        grant = self._house.directory.authorize(username, key.get_fingerprint())
        if grant is None:
            LOGINS.labels("refused").inc()
            now = time.monotonic()
            self._house.failures.add(self._peer, now)
            if self._house.failures.too_many(self._peer, now):
                self._connection.abort()
            return False
        self._grant = grant
        return True

    def auth_completed(self) -> None:
        assert self._grant is not None
        self._wait_no_more()
        if not self._house.has_room(self._grant):
            LOGINS.labels("full").inc()
            self._connection.disconnect(
                asyncssh.DISC_TOO_MANY_CONNECTIONS, "too many connections to this endpoint"
            )
            return
        self._inside = True
        self._house.inside[self._grant.uid] += 1
        CONNECTIONS.inc()
        LOGINS.labels("accepted").inc()
        self._unlisten = self._house.directory.listen(self._check)
        self._say("ssh_opened")
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        if not self._inside or self._grant is None:
            return
        self._inside = False
        self._unlisten()
        _leave(self._house.inside, self._grant.uid)
        CONNECTIONS.dec()
        self._say("ssh_closed", duration_ms=int((time.monotonic() - self._since) * 1000))

    def session_requested(self) -> Session | bool:
        if not self._open() or not self._enter():
            return False
        assert self._grant is not None
        pod = (self._grant.namespace, f"{self._grant.replica}-0")
        return Session(self._house.remote, pod, self._session_ended, self._exit)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Any:
        """Forward to a declared port of the endpoint's own container, whatever host is asked."""
        assert self._grant is not None
        door = self._house.directory.door(self._grant) if self._inside else None
        if door is None or dest_port not in door.ports:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
                f"port {dest_port} is not among the endpoint's ports",
            )
        if not self._enter():
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, "too many open channels"
            )

        async def forward(
            reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
        ) -> None:
            try:
                counts = await _forward(
                    self._house.remote, door.namespace, door.pod, dest_port, reader, writer
                )
            finally:
                self._exit()
            self._session_ended("forward", counts)

        return forward

    def _open(self) -> bool:
        grant = self._grant
        return self._inside and grant is not None and self._house.directory.still(grant)

    def _enter(self) -> bool:
        if self._channels >= self._house.limits.channels:
            return False
        self._channels += 1
        return True

    def _exit(self) -> None:
        self._channels -= 1

    def _wait_no_more(self) -> None:
        if self._waits:
            self._waits = False
            _leave(self._house.waiting, self._peer)

    def _check(self) -> None:
        if self._open() or not self._inside:
            return
        REVOCATIONS.inc()
        self._say("ssh_revoked")
        # Not a polite goodbye, which a client that does not read could put off.
        self._connection.abort()

    def _session_ended(self, kind: str, counts: Counts) -> None:
        self._say("ssh_session", kind=kind, **asdict(counts))

    def _say(self, event: str, **extra: object) -> None:
        assert self._grant is not None
        grant = self._grant
        who = {
            "endpoint": grant.endpoint,
            "namespace": grant.namespace,
            "tenant_id": grant.tenant,
            "key": grant.key,
            "fingerprint": grant.fingerprint,
            "peer": self._peer,
        }
        _log.info(event, extra={**who, **extra})


def _leave(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]  # or everybody who ever came would be remembered


async def _forward(
    remote: Remote,
    namespace: str,
    pod: str,
    port: int,
    reader: asyncssh.SSHReader[bytes],
    writer: asyncssh.SSHWriter[bytes],
) -> Counts:
    counts = Counts()
    try:
        async with asyncio.timeout(FORWARD_OPEN_SECONDS):
            address = await remote.address(namespace, pod)
            inside_reader, inside_writer = await asyncio.open_connection(address, port)
    except (RemoteError, OSError):  # a timeout as well
        writer.close()
        return counts

    async def inward() -> None:
        while data := await reader.read(65536):
            counts.received_bytes += len(data)
            inside_writer.write(data)
            await inside_writer.drain()
        inside_writer.write_eof()

    async def outward() -> None:
        while data := await inside_reader.read(65536):
            counts.sent_bytes += len(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inward())
            group.create_task(outward())

    copying = asyncio.create_task(both())
    # Who has left can be sent nothing: a container that waits in silence would be kept for ever.
    left = asyncio.create_task(writer.channel.wait_closed())
    try:
        await asyncio.wait({copying, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        copying.cancel()
        left.cancel()
        inside_writer.close()
        writer.close()
        try:
            await copying
        except* (OSError, asyncssh.Error, asyncio.CancelledError):
            pass  # one side has gone, and with it the other
    return counts
