"""One request from submission to its last token: waiting, counting, timing. Chat and completions
build their answers on it."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.client import EngineClient
from worker.errors import DeadlineExceeded, GenerationFailed, RequestError, Unavailable
from worker.metrics import EngineMetrics
from worker.request import FinishReason, Request
from worker.scheduler import Progress
from worker.server.answer import EventStream
from worker.server.openai import Limits, usage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything the routes share."""

    client: EngineClient
    tokenizer: Tokenizer
    chat: ChatEncoding
    limits: Limits
    metrics: EngineMetrics
    keep_alive_seconds: float = 10.0


class Generation:
    """The progress of one submitted request. `keep_alive`: where to write while waiting."""

    def __init__(
        self,
        serving: Serving,
        request: Request,
        progress: asyncio.Queue[Progress],
        keep_alive: EventStream | None,
    ) -> None:
        self._serving = serving
        self._request = request
        self._progress = progress
        self._first_token_at: float | None = None
        self._keep_alive = keep_alive
        self._submitted_at = self._last_token_at = time.monotonic()
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None

    async def next(self) -> Progress:
        """The next step's result. Raises RequestError when the request or the engine failed."""
        progress = await self._wait()
        if progress.finish_reason is FinishReason.DEADLINE:
            raise DeadlineExceeded(self.completion_tokens)
        if progress.finish_reason is FinishReason.ERROR:
            raise self._failure(progress)
        if progress.token is not None:
            self._count_token()
        self.finish_reason = progress.finish_reason
        return progress

    def usage(self, *, reasoning: int = 0, completion: int | None = None) -> dict[str, Any]:
        """Usage up to the last progress taken, or with fewer completion tokens than that."""
        return usage(
            prompt=len(self._request.prompt_token_ids),
            hit=self._request.cache_hit_tokens,
            completion=self.completion_tokens if completion is None else completion,
            reasoning=reasoning,
        )

    def observe_end(self, reason: str, name: str) -> None:
        """Record a request that is over for the client, which calls it `name`."""
        seconds = time.monotonic() - self._submitted_at
        self._serving.metrics.request_seconds.observe(seconds)
        self._serving.metrics.finished(reason)
        first = self._first_token_at
        fields = {
            "request_id": name,
            "finish_reason": reason,
            "prompt_tokens": len(self._request.prompt_token_ids),
            "cache_hit_tokens": self._request.cache_hit_tokens,
            "completion_tokens": self.completion_tokens,
            "first_token_ms": None if first is None else round((first - self._submitted_at) * 1e3),
            "duration_ms": round(seconds * 1e3),
        }
        logger.info("generation ended", extra={"fields": fields})

    async def _wait(self) -> Progress:
        while True:
            if not self._progress.empty():
                return self._progress.get_nowait()
            try:
                async with asyncio.timeout(self._serving.keep_alive_seconds):
                    return await self._progress.get()
            except TimeoutError:
                if self._keep_alive is not None:
                    await self._keep_alive.keep_alive()

    def _failure(self, progress: Progress) -> RequestError:
        unavailable = self._serving.client.unavailable_reason()
        if unavailable is not None:
            return Unavailable(unavailable.code, str(unavailable))
        return GenerationFailed(progress.error or "the model gave no result")

    def _count_token(self) -> None:
        metrics, now = self._serving.metrics, time.monotonic()
        if self.completion_tokens == 0:
            self._first_token_at = now
            metrics.first_token_seconds.observe(now - self._submitted_at)
            metrics.prompt_tokens.inc(len(self._request.prompt_token_ids))
            metrics.prefix_queries.inc(len(self._request.prompt_token_ids))
            metrics.prefix_hits.inc(self._request.cache_hit_tokens)
        else:
            metrics.inter_token_seconds.observe(now - self._last_token_at)
        metrics.generation_tokens.inc()
        self.completion_tokens += 1
        self._last_token_at = now


@contextmanager
def generation(
    serving: Serving, request: Request, *, name: str, keep_alive: EventStream | None
) -> Iterator[Generation]:
    """Submit `request`, known to the caller as `name`; leaving the block aborts it if unfinished.
    Raises Unavailable."""
    with serving.client.generate(request) as progress:
        running = Generation(serving, request, progress, keep_alive)
        reason = FinishReason.ERROR
        try:
            yield running
            reason = running.finish_reason or FinishReason.STOP  # a stop string ends it early
        except DeadlineExceeded:
            reason = FinishReason.DEADLINE
            raise
        except asyncio.CancelledError:
            reason = FinishReason.ABORTED
            raise
        finally:
            running.observe_end(reason, name)
