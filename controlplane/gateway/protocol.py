"""HTTP at the door: uvicorn's protocol with a bound on what a stranger can make it keep.

Used by `cli.services` for both web apps. uvicorn waits for a request's head for ever and takes one
of any size; nobody has shown a key by then, so one machine could exhaust sockets and memory.
"""

import asyncio
import re

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from controlplane.errors import ControlPlaneError, InvalidRequest, RequestTooLarge

MAX_HEAD_BYTES = 32 * 1024
HEAD_TIMEOUT_SECONDS = 20.0
# Java's own client offers HTTP/2 in its first request. The parser would take it up and lose the
# body; a server that has no HTTP/2 passes the offer over (RFC 9110, 7.8).
_HTTP2_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)


class _HeadTooLarge(Exception):
    """Stops the parser."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Refuses a head that is too long, hangs up on one that does not arrive in time."""

    head_timeout_seconds = HEAD_TIMEOUT_SECONDS

    _is_awaited = False  # a head, since a moment before `_deadline`
    _in_head = False
    _is_refused = False
    _head_bytes = 0  # of the parsed target and headers
    _unparsed_bytes = 0  # of later reads than the one the head began in
    _read_bytes = 0
    _deadline = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._is_refused:
            return
        if not self._is_awaited and self.cycle.response_complete:
            # Any byte ends uvicorn's keep-alive timer: blank lines, the body of a refused request.
            self._await_head()
        self._read_bytes = len(data)
        if self._is_awaited and b"h2c" in data:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _HTTP2_OFFER.sub(b"", head + end) + rest
        super().data_received(data)
        if self._in_head:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        # This read may have begun with another request's body.
        self._unparsed_bytes = -self._read_bytes
        if not self._is_awaited:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._head_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = self._is_awaited = False
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _HeadTooLarge
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by `data_received` when the parser gives up."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_too_large())
        else:
            self._refuse(InvalidRequest("this is not a well-formed HTTP/1.1 request"))

    def _refuse(self, error: ControlPlaneError) -> None:
        self._in_head = self._is_awaited = False
        self._is_refused = True
        content = msgspec.json.encode(error.body())
        self.transport.write(
            STATUS_LINE[error.status]
            + b"content-type: application/json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(content)
            + content
        )
        self.transport.close()

    def _await_head(self) -> None:
        self._is_awaited = True
        self._deadline = self.loop.time() + self.head_timeout_seconds
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        # One timer that looks again when it fires: a request then costs an assignment.
        self._timer = None
        if not self._is_awaited:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._on_timer)
        else:
            self.transport.abort()


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
