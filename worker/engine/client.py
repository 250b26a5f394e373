"""The engine as the server's event loop sees it: submit a request, await its progress, abort it.

Every method runs on the event loop; the engine's thread reaches it by `call_soon_threadsafe`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from worker.engine.core import OnProgress
from worker.errors import EngineCrashed, Unavailable
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Progress

logger = logging.getLogger(__name__)

WARM_UP_TOKENS = 2
ENGINE_FAILED = "the engine has failed and is being restarted"
SHUTTING_DOWN = "this worker is shutting down"


class Engine(Protocol):
    """What runs requests: `EngineCore` in this process, or `EngineGroup` over several."""

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    def start(self, on_progress: OnProgress, on_crash: Callable[[Exception], None]) -> None: ...

    def submit(self, request: Request) -> None: ...

    def abort(self, request_id: str) -> None: ...

    def stop(self) -> None: ...


class EngineClient:
    """`max_requests` bounds those running and waiting together."""

    def __init__(self, core: Engine, *, max_requests: int) -> None:
        self._core = core
        self._max_requests = max_requests
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[str, tuple[Request, asyncio.Queue[Progress]]] = {}
        self._followers: dict[str, Sequence[Request]] = {}  # by the request that they wait for
        self._unavailable: Unavailable | None = Unavailable("starting", "the engine is starting")
        self.crashed = asyncio.Event()
        self.crash = EngineCrashed("the engine's step loop has crashed; its log line tells where")

    @property
    def running(self) -> int:
        """Requests in the running batch."""
        return self._core.running

    @property
    def waiting(self) -> int:
        """Requests that wait for room in it."""
        return self._core.waiting

    async def start(self) -> None:
        """Start the engine's thread and prove with one generation that it works."""
        self._loop = asyncio.get_running_loop()
        self._core.start(self._on_progress, self._on_crash)
        prompt = Request("warm-up", [0], SamplingParams(max_tokens=WARM_UP_TOKENS, temperature=0.0))
        with self._stream(prompt) as progress:
            while True:
                last = await progress.get()
                if last.finish_reason is not None:
                    break
        if last.finish_reason is FinishReason.ERROR:
            logger.error("the first generation failed: %s", last.error)
            self._unavailable = Unavailable("engine_failed", ENGINE_FAILED)
            self.crashed.set()
        else:
            self._unavailable = None

    async def stop(self) -> None:
        """End the engine's thread; requests still active get no more progress."""
        self._unavailable = Unavailable("shutting_down", SHUTTING_DOWN)
        await asyncio.to_thread(self._core.stop)

    def check_available(self, count: int = 1) -> None:
        """Raises Unavailable when `count` new requests would not be taken."""
        if self._unavailable is not None:
            raise Unavailable(self._unavailable.code, str(self._unavailable))
        if len(self._streams) + count > self._max_requests:
            raise Unavailable("overloaded", "too many requests are waiting; retry later")

    @contextmanager
    def generate(self, *requests: Request) -> Iterator[asyncio.Queue[Progress]]:
        """Run `requests`, several only if they share a prompt: the first at once, the others when
        it is computed, so that they find it in the cache. Their progress arrives in the queue.
        Leaving the block aborts what is unfinished. Raises Unavailable."""
        self.check_available(len(requests))
        with self._stream(*requests) as progress:
            yield progress

    def abort(self, request_id: str) -> None:
        """End one request of those that a `generate` runs; it gets no more progress."""
        if self._streams.pop(request_id, None) is not None:
            self._core.abort(request_id)

    def fail_all(self, reason: Unavailable) -> None:
        """Refuse new requests for `reason` and end every active one with an error."""
        self._unavailable = reason
        for request, progress in self._streams.values():
            error = Progress(request, finish_reason=FinishReason.ERROR, error=str(reason))
            progress.put_nowait(error)

    def unavailable_reason(self) -> Unavailable | None:
        """Why every request is refused or failed; None when in service."""
        return self._unavailable

    @contextmanager
    def _stream(self, *requests: Request) -> Iterator[asyncio.Queue[Progress]]:
        progress: asyncio.Queue[Progress] = asyncio.Queue()
        for request in requests:
            assert request.request_id not in self._streams
            self._streams[request.request_id] = (request, progress)
        for request in requests[:1]:
            self._followers[request.request_id] = requests[1:]
            self._core.submit(request)
        try:
            yield progress
        finally:
            for request in requests:
                self._followers.pop(request.request_id, None)
                # Finished requests are gone from the table; this one may be, too.
                self.abort(request.request_id)

    def _on_progress(self, progress: list[Progress]) -> None:
        if progress:
            self._call_soon(lambda: self._deliver(progress))

    def _on_crash(self, error: Exception) -> None:
        if isinstance(error, EngineCrashed):
            self.crash = error
        self._call_soon(self._crash)

    def _call_soon(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _deliver(self, progress: list[Progress]) -> None:
        for p in progress:
            for follower in self._followers.pop(p.request.request_id, ()):
                if follower.request_id in self._streams:
                    self._core.submit(follower)
            stream = self._streams.get(p.request.request_id)
            if stream is not None:
                stream[1].put_nowait(p)
                if p.finish_reason is not None:
                    del self._streams[p.request.request_id]

    def _crash(self) -> None:
        self.fail_all(Unavailable("engine_failed", ENGINE_FAILED))
        self.crashed.set()
