"""HTTP to engines: pooled keep-alive connections on asyncio with httptools. Called by `dispatch`.

A general client costs milliseconds a request; this one knows a single kind of request, POST with a
body, over TCP or a Unix socket. Closing a connection before its answer has ended is how a
generation is aborted.
"""

import asyncio
from collections import defaultdict
from typing import NamedTuple
from urllib.parse import urlsplit

from controlplane.gateway.cancellation import Cancellation
from controlplane.gateway.connection import Connection, ConnectionLost, UpstreamError

CONNECT_TIMEOUT_SECONDS = 5.0
# Servers commonly close idle connections after 5 s; one older than this is not worth the race.
MAX_IDLE_SECONDS = 4.0
_HEAD = "content-type: application/json\r\naccept: text/event-stream\r\n"


class ConnectFailed(UpstreamError):
    """Nobody listens there: nothing was sent."""


class _Origin(NamedTuple):
    """Where to connect, and the request's unchanging part."""

    host: str
    port: int
    socket_path: str
    prefix: str


class Upstream:
    """A pool of connections to every engine. All of it runs on the event loop's thread.

    Args:
        first_byte_timeout_seconds: how long an engine may take to its first byte.
        idle_timeout_seconds: how long it may then be silent.
        token: what is shown to every engine; empty for nothing.
    """

    def __init__(
        self, *, first_byte_timeout_seconds: float, idle_timeout_seconds: float, token: str = ""
    ) -> None:
        self._first_byte_timeout = first_byte_timeout_seconds
        self._idle_timeout = idle_timeout_seconds
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        self._origins: dict[str, _Origin] = {}
        # What every request says, whichever engine it goes to.
        self._head = _HEAD + (f"authorization: Bearer {token}\r\n" if token else "")

    async def post(
        self, url: str, path: str, body: bytes, *, request_id: str, cancellation: Cancellation
    ) -> "Response":
        """Send `body` to `url` + `path` and return the response when its head has arrived.

        Raises:
            ConnectFailed: nothing was sent.
            ConnectionLost: the connection ended before the head.
            UpstreamTimeout: no byte in time.
            ProtocolError: what answers there does not speak HTTP.
            Aborted: `cancellation` was set; the connection is closed.
        """
        origin = self._origin(url)
        request = self._encode_request(origin, path, body, request_id)
        lost: ConnectionLost | None = None
        while (connection := self._take_idle(url)) is not None:
            try:
                return await self._send(url, connection, request, cancellation)
            except ConnectionLost as error:
                if connection.received_bytes:
                    raise
                # The engine closed it while it was idle, or died with the request in hand.
                lost = error
        try:
            connection = await _connect(origin)
        except ConnectFailed as error:
            raise lost or error from error
        return await self._send(url, connection, request, cancellation)

    async def _send(
        self, url: str, connection: Connection, request: bytes, cancellation: Cancellation
    ) -> "Response":
        cancellation.attach(connection.abort)
        try:
            connection.send(request, self._first_byte_timeout, self._idle_timeout)
            await connection.head()
        except BaseException:
            cancellation.detach()
            connection.close()
            raise
        return Response(self, url, connection, cancellation)

    def _take_idle(self, url: str) -> Connection | None:
        idle = self._idle[url]
        while idle:
            connection = idle.pop()
            if connection.is_usable and connection.idle_seconds < MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def give_back(self, url: str, connection: Connection) -> None:
        """Keep a connection whose response has ended."""
        self._idle[url] = [c for c in self._idle[url] if c.is_usable]
        self._idle[url].append(connection)

    @property
    def known(self) -> frozenset[str]:
        """Addresses that something is remembered of."""
        return frozenset(self._origins) | frozenset(self._idle)

    def close(self) -> None:
        """Close idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _encode_request(self, origin: _Origin, path: str, body: bytes, request_id: str) -> bytes:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        head = (
            f"POST {origin.prefix}{path} HTTP/1.1\r\n"
            f"host: {host}:{origin.port}\r\n"
            f"{self._head}"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\n"
            "\r\n"
        )
        return head.encode("ascii") + body

    def _origin(self, url: str) -> _Origin:
        if url not in self._origins:
            self._forget_gone()
            self._origins[url] = _parse_url(url)
        return self._origins[url]

    def _forget_gone(self) -> None:
        """Forget where no connection is left: pods come and go, each at an address of its own."""
        for url, idle in list(self._idle.items()):
            if not any(connection.is_usable for connection in idle):
                del self._idle[url]
                self._origins.pop(url, None)


class Response:
    """One response being read; `close` it when done, whatever happened."""

    def __init__(
        self, upstream: Upstream, url: str, connection: Connection, cancellation: Cancellation
    ) -> None:
        self.status = connection.status
        self._upstream = upstream
        self._url = url
        self._connection = connection
        self._cancellation = cancellation

    async def read(self) -> bytes:
        """Return the body's next bytes, b"" at its end; raises as `Upstream.post` does."""
        return await self._connection.read()

    def close(self) -> None:
        """Keep the connection if the response has ended, else close it: the engine aborts."""
        self._cancellation.detach()
        if self._connection.is_reusable:
            self._upstream.give_back(self._url, self._connection)
        else:
            self._connection.close()


async def _connect(origin: _Origin) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            if origin.socket_path:
                _, connection = await loop.create_unix_connection(Connection, origin.socket_path)
            else:
                # asyncio and uvloop switch Nagle's algorithm off on every TCP connection.
                _, connection = await loop.create_connection(Connection, origin.host, origin.port)
    except (OSError, TimeoutError) as error:
        raise ConnectFailed(str(error) or type(error).__name__) from error
    return connection


def _parse_url(url: str) -> _Origin:
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ConnectFailed(f"a replica's url is none: {url!r}") from error
    if parts.scheme == "unix":
        return _Origin("localhost", 0, parts.path, "")
    if parts.scheme != "http" or not parts.hostname:
        raise ConnectFailed(f"a replica's url must be http:// or unix://, not {url!r}")
    return _Origin(parts.hostname, port, "", parts.path.rstrip("/"))
