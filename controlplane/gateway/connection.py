"""One keep-alive HTTP/1.1 connection to an engine. Made and reused by `upstream`."""

import asyncio
import time
from typing import cast

import httptools

from controlplane.gateway.cancellation import Aborted

# A client that reads slowly must not make us buffer an engine's whole answer.
HIGH_WATER_BYTES = 256 * 1024


class UpstreamError(Exception):
    """An engine could not be asked, or did not answer to the end."""


class ConnectionLost(UpstreamError):
    """The connection ended before the response did."""


class UpstreamTimeout(UpstreamError):
    """The engine was silent for too long."""


class ProtocolError(UpstreamError):
    """What answers is not an HTTP server we can follow."""


class Connection(asyncio.Protocol):
    """Sends one request at a time and hands the response's body out in pieces."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._idle_timeout = 0.0
        self._idle_since = time.monotonic()
        self._keep_alive = True
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head_complete = False
        self._complete = True
        self._framed = False
        self._paused = False
        self._parts: list[bytes] = []
        self._buffered_bytes = 0
        self.received_bytes = 0
        self.status = 0

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent on it."""
        return self._failure is None and self._complete and self._keep_alive

    @property
    def is_reusable(self) -> bool:
        """Whether its response has ended and left it usable."""
        return self.is_usable and not self._parts

    @property
    def idle_seconds(self) -> float:
        """Seconds since its last response ended."""
        return time.monotonic() - self._idle_since

    def send(self, request: bytes, first_byte_timeout: float, idle_timeout: float) -> None:
        """Send a whole request; timeouts in seconds, of the body's first byte and between bytes."""
        if self._failure is not None:
            raise self._failure
        assert self.is_usable
        assert self._transport is not None
        self._reset()
        self._complete = False
        self._idle_timeout = idle_timeout
        self._deadline = self._loop.time() + first_byte_timeout
        self._transport.write(request)
        self._watch_deadline()

    async def head(self) -> None:
        """Wait for the response's head; `status` is then known."""
        while not self._head_complete:
            await self._wait()

    async def read(self) -> bytes:
        """Return the body's next bytes, b"" at its end."""
        while not self._parts:
            if self._complete:
                return b""
            await self._wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._buffered_bytes = 0
        if self._paused and self._transport is not None and self._failure is None:
            self._paused = False
            self._deadline = self._loop.time() + self._idle_timeout
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """End the connection now; whoever waits gets Aborted."""
        self._fail(Aborted())

    def close(self) -> None:
        """End the connection; nobody waits."""
        self._fail(ConnectionLost("closed"))

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        # What arrived before a failure is still the answer's beginning: it is read first.
        if self._failure is not None and not self._parts and not self._complete:
            raise self._failure

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: Exception) -> None:
        if self._failure is None:
            self._failure = failure
        if isinstance(failure, Aborted):
            self._parts.clear()
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _watch_deadline(self) -> None:
        # One timer that looks again when it fires: moving the deadline then costs an assignment.
        self._stop_timer()
        self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._complete or self._failure is not None:
            return
        if self._paused:
            # It is the client who is slow.
            self._deadline = self._loop.time() + self._idle_timeout
        if self._loop.time() < self._deadline:
            self._watch_deadline()
        else:
            self._fail(UpstreamTimeout("no byte in time"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # uvloop's transports are asyncio.Transport in all but inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self.received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ProtocolError(str(error)))
        else:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        if self._head_complete and not self._framed and not self._complete and error is None:
            self.on_message_complete()
        self._fail(ConnectionLost(str(error) if error is not None else "closed by the engine"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()
        self._keep_alive = self._parser.should_keep_alive()
        self._head_complete = True

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._parts.append(data)
        self._buffered_bytes += len(data)
        self._deadline = self._loop.time() + self._idle_timeout
        # The first byte may be waited for far longer than the next.
        if self._timer is not None and self._timer.when() > self._deadline:
            self._watch_deadline()
        if self._buffered_bytes > HIGH_WATER_BYTES and not self._paused:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._complete = True
        self._idle_since = time.monotonic()
        self._stop_timer()
