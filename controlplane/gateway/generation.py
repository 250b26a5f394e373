"""An engine's running answer as chunks, each metered before it is handed on. Called by `chat`."""

from controlplane.gateway.chunks import Chunk, MalformedChunk, parse_chunk
from controlplane.gateway.connection import UpstreamError
from controlplane.gateway.dispatch import Answer
from controlplane.gateway.meter import Meter
from controlplane.gateway.sse import DONE, Event, EventSplitter, EventTooLarge
from controlplane.gateway.telemetry import CHUNKS


class EngineFailed(Exception):
    """The answer broke off, or was none."""


class Generation:
    """Reads one answer to its end.

    `finish_reason` is the engine's once its last chunk has been read.
    """

    def __init__(self, answer: Answer, meter: Meter) -> None:
        self._answer = answer
        self._meter = meter
        self._splitter = EventSplitter()
        self._unread = answer.first
        self._done = False
        self.finish_reason: str | None = None

    async def next(self) -> list[Chunk | Event] | None:
        """Return the chunks, and comments, of one read; None at the answer's end.

        When it returns, the usage of all of them is in the journal.

        Raises:
            EngineFailed: the engine said so, broke off, or speaks another language.
            Unavailable: the journal's disk is full.
            Aborted: the request was cancelled.
        """
        if self._done:
            return None
        data, self._unread = self._unread, b""
        try:
            data = data or await self._answer.response.read()
            items = [self._parse(event) for event in self._splitter.feed(data)]
        except (UpstreamError, MalformedChunk, EventTooLarge) as error:
            raise EngineFailed(str(error)) from error
        self._meter.journal_progress()
        CHUNKS.inc(len(items))
        if not data or self._done:
            self._done = True
            if self.finish_reason is None:
                raise EngineFailed("the answer ended without a finish reason")
        return [item for item in items if item is not None]

    def _parse(self, event: Event) -> Chunk | Event | None:
        if event.data is None:
            return event
        if self._done or event.data == DONE:
            self._done = True
            return None
        chunk = parse_chunk(event.data)
        if chunk.is_error:
            raise EngineFailed("the engine reported an error")
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self._meter.see(self._answer.replica.id, chunk)
        return chunk
