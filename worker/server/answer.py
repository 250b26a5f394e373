"""One HTTP answer whose work stops when its client goes away. Chat and completions run in it."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker.errors import GenerationFailed, RequestError

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def error_response(error: RequestError) -> Response:
    """The error as an HTTP response."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return Response(
        msgspec.json.encode(error.body()),
        status_code=error.status,
        headers=headers,
        media_type="application/json",
    )


class EventStream:
    """Server-sent events. The status goes out with the first event; until then an error can still
    have a status of its own."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False

    async def event(self, data: object) -> None:
        """Send one JSON document."""
        await self._write(b"data: " + msgspec.json.encode(data) + b"\n\n")

    async def done(self) -> None:
        """The end of a complete stream."""
        await self._write(b"data: [DONE]\n\n")

    async def keep_alive(self) -> None:
        """A comment, so that nobody on the way takes the silence for a dead connection."""
        await self._write(b": keep-alive\n\n")

    async def document(self, data: object) -> None:
        """Answer with one JSON document instead of a stream."""
        assert not self.started
        self.started = True
        response = Response(msgspec.json.encode(data), media_type="application/json")
        await response(self._scope, self._receive, self._send)

    async def fail(self, error: RequestError) -> None:
        """Tell the client in the form that is still possible; ends the answer."""
        if self.started:
            await self.event(error.body())
        else:
            await error_response(error)(self._scope, self._receive, self._send)

    async def close(self) -> None:
        """End the body of a started stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, body: bytes) -> None:
        if not self.started:
            self.started = True
            start = {"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS}
            await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


class Answer(Response):
    """Runs `produce` and cancels it when the client disconnects."""

    def __init__(self, produce: Callable[[EventStream], Awaitable[None]], *, stream: bool) -> None:
        super().__init__()
        self._produce = produce
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._work(EventStream(scope, receive, send)))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _work(self, events: EventStream) -> None:
        try:
            await self._produce(events)
        except RequestError as error:
            await events.fail(error)
        except Exception:
            await events.fail(GenerationFailed("internal error"))
            raise
        finally:
            if events.started and self._stream:
                await events.close()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
