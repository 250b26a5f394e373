"""A running answer as chunks, each metered before it is handed on. Called by `serving`.

An answer outlives its engine: when that is lost, the order goes to another with what has been said
so far, and the chunks go on as if nothing had happened.
"""

import asyncio
import logging

from controlplane.errors import ControlPlaneError
from controlplane.gateway.chunks import Chunk, MalformedChunk, parse_chunk
from controlplane.gateway.connection import ConnectionLost, UpstreamError, UpstreamTimeout
from controlplane.gateway.dispatch import Answer, Dispatcher
from controlplane.gateway.meter import Meter
from controlplane.gateway.refusals import RETRYABLE_CODES, PromptExceedsLimit, parse_error
from controlplane.gateway.resume import NotResumed, Transcript
from controlplane.gateway.sse import DONE, Event, EventSplitter, EventTooLarge
from controlplane.gateway.telemetry import CHUNKS, RESUMPTIONS

KEEP_ALIVE_SECONDS = 1.0
KEEP_ALIVE = Event(None, b": keep-alive")

_log = logging.getLogger(__name__)


class EngineFailed(Exception):
    """The answer broke off for good, or was none."""


class Interrupted(UpstreamError):
    """The engine itself gave the answer up, for a reason that is not the request's."""


# After these another engine may go on; after any other failure it would fail as well.
_LOSSES = (ConnectionLost, UpstreamTimeout, Interrupted)
_FAILURES = (UpstreamError, MalformedChunk, EventTooLarge, NotResumed, EngineFailed)


class Generation:
    """Reads one answer to its end; `close` it when done.

    `finish_reason` is the engine's once its last chunk has been read.
    """

    def __init__(self, dispatcher: Dispatcher, answer: Answer, meter: Meter) -> None:
        self._dispatcher = dispatcher
        self._order = answer.order
        self._body = answer.order.body
        self._meter = meter
        self._transcript = Transcript()
        self._failure: Exception | None = None
        self._moving: asyncio.Task[Answer] | None = None
        self._is_done = False
        self.finish_reason: str | None = None
        self._listen(answer)

    def _listen(self, answer: Answer) -> None:
        self._answer: Answer | None = answer
        self._replica = answer.visit.replica
        self._splitter = EventSplitter()
        self._unread = answer.first

    async def next(self) -> list[Chunk | Event] | None:
        """Return the chunks, and comments, of one read; None at the answer's end.

        When it returns, the usage of all of them is in the journal. While no engine answers, there
        is a comment every `KEEP_ALIVE_SECONDS`.

        Raises:
            EngineFailed: the engine said so, broke off and no other goes on, or speaks another
                language.
            Unavailable: the journal's disk is full.
            Aborted: the request was cancelled.
        """
        if self._is_done:
            return None
        if self._failure is not None:
            return await self._go_on(self._failure)
        items = await self._read()
        self._meter.journal_progress()
        CHUNKS.inc(len(items))
        return items

    async def close(self) -> None:
        """Free the engine, whichever it is by now."""
        if self._moving is not None:
            self._moving.cancel()
            (moved,) = await asyncio.gather(self._moving, return_exceptions=True)
            if isinstance(moved, Answer):
                moved.close()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def _read(self) -> list[Chunk | Event]:
        assert self._answer is not None
        items: list[Chunk | Event] = []
        data, self._unread = self._unread, b""
        try:
            data = data or await self._answer.response.read()
            for event in self._splitter.feed(data):
                if (item := self._take(event)) is not None:
                    items.append(item)
            if not data:
                raise ConnectionLost("the answer ended without a finish reason")
            if any(isinstance(item, Chunk) for item in items):
                self._answer.visit.said(self._meter.seen.output_tokens)
        except _FAILURES as error:
            # What came before it is the client's; what is missing after the last word, nobody's.
            if self.finish_reason is None:
                self._failure = error
                self._answer.visit.failed = True
            else:
                self._is_done = True
        return items

    def _take(self, event: Event) -> Chunk | Event | None:
        if self._is_done:
            return None
        if event.data is None:
            return event
        if event.data == DONE:
            if self.finish_reason is None:
                raise EngineFailed("the answer ended without a finish reason")
            self._is_done = True
            return None
        chunk = parse_chunk(event.data)
        if chunk.is_error:
            retryable = parse_error(event.data).code in RETRYABLE_CODES
            raise (Interrupted if retryable else EngineFailed)("the engine reported an error")
        if not self._transcript.add(chunk):
            return None
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self._meter.see(self._replica.id, chunk)
        return None if chunk.is_silent else chunk

    async def _go_on(self, failure: Exception) -> list[Chunk | Event]:
        """Have another engine go on; wait for it, but not for long without a word."""
        if self._moving is None:
            self._moving = self._move(failure)
        done, _ = await asyncio.wait({self._moving}, timeout=KEEP_ALIVE_SECONDS)
        if not done:
            return [KEEP_ALIVE]
        moving, self._moving = self._moving, None
        try:
            answer = moving.result()
        except (ControlPlaneError, PromptExceedsLimit) as error:
            RESUMPTIONS.labels("failed").inc()
            raise self._given_up(error) from error
        RESUMPTIONS.labels("resumed").inc()
        self._failure = None
        self._listen(answer)
        return []

    def _move(self, failure: Exception) -> "asyncio.Task[Answer]":
        self._hang_up()
        if not isinstance(failure, _LOSSES) or not self._transcript.is_resumable:
            raise self._given_up(failure) from failure
        self._tell("answer_interrupted", failure)
        self._order.body = self._transcript.resume(self._body)
        self._meter.keep_prompt()
        return asyncio.create_task(self._dispatcher.move(self._order, self._replica))

    def _given_up(self, reason: Exception) -> EngineFailed:
        self._tell("answer_given_up", reason)
        return EngineFailed(str(reason))

    def _tell(self, event: str, reason: Exception) -> None:
        # Its type only: an engine's words may quote the prompt.
        fields = {"request_id": self._order.request_id, "replica": self._replica.id}
        _log.warning(event, extra=fields | {"reason": type(reason).__name__})
