"""One request's meter: what it has used, written down before anybody sees it. Called by `serving`.

The journal gets OPENED, then PROGRESS before each forwarded read, then exactly one FINAL, on every
path. FINAL is durable before the answer's end leaves.
"""

import time

import msgspec

from controlplane.accounts.bounds import HoldPlan
from controlplane.gateway.chunks import Chunk
from controlplane.gateway.shipping import Shipper
from controlplane.gateway.telemetry import JOURNAL_SECONDS
from controlplane.usage.journal import Journal
from controlplane.usage.records import Final, Opened, Progress, TokenUsage
from controlplane.usage.traces import Trace


def now_us() -> int:
    """Return µs since 1970 UTC."""
    return time.time_ns() // 1000


class Meter:
    """Cumulative usage of one request, journalled. `finish` must be called on every path."""

    def __init__(self, journal: Journal, shipper: Shipper, opened: Opened) -> None:
        self.opened = opened
        self.first_token_at_us: int | None = None
        self._journal = journal
        self._shipper = shipper
        self._trace = Trace(opened)
        self._is_open = False
        self._is_finished = False
        self._replica: str | None = None
        self.seen = TokenUsage()  # may be ahead of what is journalled
        self._prompt: TokenUsage | None = None

    @property
    def usage(self) -> TokenUsage:
        """What is journalled: the bill, should the request end now."""
        return self._trace.usage

    @property
    def finish_reason(self) -> str | None:
        """How the request ended; None while it runs."""
        return self._trace.finish_reason

    def open(self) -> None:
        """Write down that the request's hold is placed.

        Raises:
            JournalFull: nothing may run.
        """
        self._journal.append(self.opened)
        self._trace = self._journal.trace(self.opened.request_id)
        self._is_open = True

    def reopen(self, plan: HoldPlan) -> None:
        """Write down that the request's hold has been replaced.

        Raises:
            JournalFull: the request must not go on.
        """
        self.opened = msgspec.structs.replace(
            self.opened,
            prompt_tokens=plan.prompt_tokens,
            completion_tokens=plan.completion_tokens,
            amount_p=plan.amount_p,
        )
        self._journal.append(self.opened)

    def see(self, replica_id: str, chunk: Chunk) -> None:
        """Take in a chunk that is about to be forwarded."""
        self._replica = replica_id
        if chunk.has_choices and self.first_token_at_us is None:
            self.first_token_at_us = now_us()
        if chunk.usage is not None:
            self.seen = self._with_kept_prompt(chunk.usage)

    def keep_prompt(self) -> None:
        """Stay with the prompt's tokens as told so far: another engine's cache is not the client's
        affair."""
        if self.seen.hit_tokens or self.seen.miss_tokens:
            self._prompt = self.seen

    def _with_kept_prompt(self, usage: TokenUsage) -> TokenUsage:
        kept = self._prompt or usage
        return TokenUsage(
            kept.hit_tokens, kept.miss_tokens, usage.output_tokens, usage.reasoning_tokens
        )

    def journal_progress(self) -> None:
        """Write down what the chunks seen so far have used.

        Raises:
            JournalFull: none of them may be forwarded.
        """
        if self.seen == self.usage or self._replica is None:
            return
        request_id = self.opened.request_id
        self._journal.append(Progress(request_id, self._replica, self.seen, now_us()))

    async def finish(self, finish_reason: str) -> None:
        """Write down, durably, how the request ended, and have it settled; only the first counts.

        Raises:
            JournalFull: it is not durable. The request is settled all the same, from memory, or as
                `lost` with its last progress should this process die first.
        """
        if self._is_finished:
            return
        self._is_finished = True
        final = Final(
            request_id=self.opened.request_id,
            replica=self._replica,
            usage=self.usage,
            finish_reason=finish_reason,
            first_token_at_us=self.first_token_at_us,
            finished_at_us=now_us(),
        )
        try:
            if self._is_open:
                started = time.perf_counter()
                await self._journal.final(final)
                JOURNAL_SECONDS.observe(time.perf_counter() - started)
            else:
                self._trace.apply(final)
        finally:
            self._shipper.add(self._trace)
