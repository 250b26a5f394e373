"""An ASGI response: whole JSON, or a stream of events. Called by `app` and `serving`."""

import msgspec
from starlette.types import Send

from controlplane.errors import ControlPlaneError
from controlplane.gateway import sse


class Reply:
    """Sends one response; after its first byte an error is an event, not a status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status: int | None = None
        self._streams = False
        self._is_whole_begun = False  # its status has left, its content has not

    async def json(
        self, status: int, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Send a whole response, or the content of one that `blank` has begun."""
        if self._is_whole_begun:
            self._is_whole_begun = False
        else:
            await self._start(status, b"application/json", headers or {}, len(content))
        await self._send({"type": "http.response.body", "body": content})

    async def blank(self) -> None:
        """Send an empty line ahead of a whole response's JSON, its head first: status 200 for good.

        DeepSeek does so; readers of JSON pass over it.
        """
        if self.status is None:
            self._is_whole_begun = True
            await self._start(200, b"application/json", {}, None)
        await self._send({"type": "http.response.body", "body": b"\n", "more_body": True})

    async def text(self, content: bytes, content_type: bytes) -> None:
        """Send a whole response that is not JSON."""
        await self._start(200, content_type, {}, len(content))
        await self._send({"type": "http.response.body", "body": content})

    async def stream(self, data: bytes) -> None:
        """Send some of an event stream, its head first."""
        if self.status is None:
            # Proxies that buffer would turn a stream into a wait.
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            self._streams = True
            await self._start(200, b"text/event-stream; charset=utf-8", headers, None)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the stream's last bytes."""
        assert self._streams
        await self._send({"type": "http.response.body", "body": data})

    async def error(self, error: ControlPlaneError) -> None:
        """Send an error: as a status, or as what follows one that has left, a stream's last event
        or a whole response's content."""
        content = msgspec.json.encode(error.body())
        if self.status is None or self._is_whole_begun:
            await self.json(error.status, content, error.headers())
        elif self._streams:
            await self.end(sse.encode(content))

    async def _start(
        self, status: int, content_type: bytes, headers: dict[str, str], length: int | None
    ) -> None:
        assert self.status is None
        self.status = status
        raw = [(b"content-type", content_type), (b"x-request-id", self._request_id)]
        if length is not None:
            raw.append((b"content-length", b"%d" % length))
        raw += [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
