"""One request from submission to its last token: waiting, counting, timing, for all its choices.
`delivery` builds answers on it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.client import EngineClient
from worker.errors import DeadlineExceeded, GenerationFailed, RequestError, Unavailable
from worker.metrics import EngineMetrics
from worker.request import FinishReason
from worker.scheduler import Progress
from worker.server.answer import EventStream
from worker.server.choice import Choice
from worker.server.journal import Journal
from worker.server.journal_store import Row
from worker.server.openai import Limits, usage

logger = logging.getLogger(__name__)

RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything the routes share. `api_key`: what requests must show; empty for nothing."""

    client: EngineClient
    tokenizer: Tokenizer
    chat: ChatEncoding
    limits: Limits
    metrics: EngineMetrics
    keep_alive_seconds: float = 10.0
    journal: Journal | None = None
    api_key: str = ""

    def unavailable_reason(self) -> Unavailable | None:
        """Why every new request is refused; None when in service."""
        return self.client.unavailable_reason() or (
            None if self.journal is None else self.journal.unavailable_reason()
        )

    def check_available(self, count: int) -> None:
        """Raises Unavailable when a request with `count` choices would not be taken."""
        self.client.check_available(count)
        if (reason := self.unavailable_reason()) is not None:
            raise reason


class Generation:
    """The progress of one submitted request. `keep_alive`: where to write while waiting."""

    def __init__(
        self,
        serving: Serving,
        choices: Sequence[Choice],
        progress: asyncio.Queue[Progress],
        *,
        name: str,
        keep_alive: EventStream | None,
    ) -> None:
        self.choices = choices
        self._name = name
        self._started_us = time.time_ns() // 1000
        self._prompt_computed = not self.unfinished
        self._recorded = False
        self._serving = serving
        self._by_id = {choice.request.request_id: choice for choice in choices}
        self._progress = progress
        self._keep_alive = keep_alive
        self._submitted_at = time.monotonic()
        self._first_token_at: float | None = None

    @property
    def unfinished(self) -> bool:
        """Whether there is more to come."""
        return any(choice.finish_reason is None for choice in self.choices)

    @property
    def finish_reason(self) -> str:
        """How the choices have ended, each way named once."""
        return ",".join(dict.fromkeys(c.finish_reason for c in self.choices if c.finish_reason))

    async def next(self) -> tuple[Choice, Progress]:
        """The next step's result for one of the choices. Raises RequestError when the request or
        the engine failed."""
        while True:
            progress = await self._wait()
            choice = self._by_id[progress.request.request_id]
            if choice.finish_reason is None:  # else from a step that was in flight at its end
                break
        if progress.finish_reason is FinishReason.DEADLINE:
            raise DeadlineExceeded(self._completion_tokens())
        if progress.finish_reason is FinishReason.ERROR:
            raise self._failure(progress)
        self._prompt_computed |= progress.token is not None or progress.finish_reason is not None
        return choice, progress

    def count(self, choice: Choice, progress: Progress) -> bool:
        """Account for the token of `progress`, if it has one; False: it is none of this answer's
        new tokens."""
        if progress.token is None or not choice.take(progress.token):
            return False
        metrics, now = self._serving.metrics, time.monotonic()
        if self._first_token_at is None:
            self._first_token_at = now
            prompt, hit = self._prompt_tokens()
            metrics.first_token_seconds.observe(now - self._submitted_at)
            metrics.prompt_tokens.inc(prompt)
            metrics.prefix_queries.inc(prompt)
            metrics.prefix_hits.inc(hit)
        elif choice.last_token_at:
            metrics.inter_token_seconds.observe(now - choice.last_token_at)
        metrics.generation_tokens.inc()
        choice.last_token_at = now
        return True

    def finish(self, choice: Choice, reason: FinishReason) -> None:
        """End a choice, though the engine may still be at it."""
        choice.finish_reason = reason
        self._serving.client.abort(choice.request.request_id)

    async def begin_record(self) -> None:
        """Open the journal's row. Raises Unavailable."""
        if self._serving.journal is not None:
            try:
                await self._serving.journal.begin(lambda: self._row(RUNNING))
            except Unavailable:
                self._recorded = True  # there is nothing to close
                raise

    async def end_record(self) -> None:
        """Close the journal's row once no choice is left."""
        if self._serving.journal is not None and not self.unfinished:
            self._recorded = True  # even should the client leave now
            await self._serving.journal.end(self._row(self.finish_reason))

    def usage(self) -> dict[str, Any]:
        """Usage up to the last token counted."""
        prompt, hit = self._prompt_tokens()
        first = self.choices[0]
        counts = usage(
            prompt=prompt,
            hit=hit,
            completion=self._completion_tokens(),
            reasoning=self._reasoning_tokens(),
        )
        if first.resumed_tokens is not None:
            counts["resumed_tokens"] = first.resumed_tokens
            given = prompt + first.resumed_tokens
            counts["recomputed_tokens"] = given - first.request.cache_hit_tokens
        return counts

    def leave(self, reason: str) -> None:
        """Record that the request is over for the client."""
        if self._serving.journal is not None and not self._recorded:
            self._serving.journal.end_soon(self._row(reason))
        seconds = time.monotonic() - self._submitted_at
        self._serving.metrics.request_seconds.observe(seconds)
        self._serving.metrics.finished(reason)
        first = self._first_token_at
        prompt, hit = self._prompt_tokens()
        fields = {
            "request_id": self._name,
            "finish_reason": reason,
            "prompt_tokens": prompt,
            "cache_hit_tokens": hit,
            "completion_tokens": self._completion_tokens(),
            "first_token_ms": None if first is None else round((first - self._submitted_at) * 1e3),
            "duration_ms": round(seconds * 1e3),
        }
        logger.info("generation ended", extra={"fields": fields})

    def _row(self, reason: str) -> Row:
        """What the journal shall know; also called by its thread, while the counts grow."""
        first = self.choices[0]
        prompt, hit = self._prompt_tokens() if self._prompt_computed else (0, 0)
        reasoning = self._reasoning_tokens()  # first, lest it outgrow the completion
        return Row(
            attempt_id=first.request.request_id,
            request_id=self._name,
            model=self._serving.limits.model,
            started_us=self._started_us,
            prompt_tokens=prompt,
            prompt_cache_hit_tokens=hit,
            prompt_cache_miss_tokens=prompt - hit,
            completion_tokens=self._completion_tokens(),
            reasoning_tokens=reasoning,
            resumed_tokens=first.resumed_tokens or 0,
            finish_reason=reason,
        )

    def _completion_tokens(self) -> int:
        return sum(choice.completion_tokens for choice in self.choices)

    def _reasoning_tokens(self) -> int:
        return sum(choice.reader.reasoning_tokens for choice in self.choices)

    def _prompt_tokens(self) -> tuple[int, int]:
        """The prompt's tokens, and those of them found in the cache."""
        request = self.choices[0].request
        prompt = len(request.prompt_token_ids)
        return prompt, min(prompt, request.cache_hit_tokens)

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


@asynccontextmanager
async def generation(
    serving: Serving, choices: Sequence[Choice], *, name: str, keep_alive: EventStream | None
) -> AsyncIterator[Generation]:
    """Submit the choices' requests, known to the caller as `name`; leaving the block aborts what is
    unfinished. Raises Unavailable."""
    requests = [choice.request for choice in choices if choice.finish_reason is None]
    with serving.client.generate(*requests) as progress:
        running = Generation(serving, choices, progress, name=name, keep_alive=keep_alive)
        reason: str = FinishReason.ERROR
        try:
            await running.begin_record()
            yield running
            reason = running.finish_reason
        except DeadlineExceeded:
            reason = FinishReason.DEADLINE
            raise
        except asyncio.CancelledError:
            reason = FinishReason.ABORTED
            raise
        finally:
            running.leave(reason)
