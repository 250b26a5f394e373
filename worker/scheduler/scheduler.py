"""Continuous batching: decides what every forward computes. Plain data; the engine's core calls it.

Each step first serves every sequence that decodes, then spends what is left of the token budget on
prompts, running and waiting alike, in chunks and in `waiting`'s order, so that a long prompt stalls
nobody. When pages run out, the last in that order is preempted and computed again later, from the
prefix cache where that still holds it; it starts again when all that it had fits, so that two
requests do not push each other out by turns. A waiting request that finds no room takes it from one
of worse priority, never from its equals.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from worker.batch import Batch, ScheduledSequence, SequenceOutput, StateCopy, TokenLogprob
from worker.cache.manager import CacheManager
from worker.request import FinishReason, Request
from worker.scheduler.drafts import choose_drafts, with_drafts
from worker.scheduler.waiting import WaitingQueue


@dataclass(slots=True)
class Progress:
    """One token, or less, that a step brought. `finish_reason` is set on a request's last one."""

    request: Request
    token: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None


@dataclass(slots=True)
class _Scheduled:
    """A request's part in the step in flight."""

    request: Request
    end: int
    pinned: int | None  # the snapshot this step copies from
    kept: int | None  # the snapshot this step fills
    kept_tokens: int  # how many tokens that is of; beyond `end` only if drafts are right


class Scheduler:
    """Owns every request from `add` until it is finished. One step may be in flight at a time:
    `schedule`, run the batch, `update`. `clock` tells the time that deadlines are in."""

    def __init__(
        self,
        cache: CacheManager,
        *,
        max_sequences: int,
        max_batch_tokens: int,
        max_model_len: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert max_batch_tokens >= max_sequences > 0
        self._cache = cache
        self._max_sequences = max_sequences
        self._max_batch_tokens = max_batch_tokens
        self._max_model_len = max_model_len
        self._clock = clock
        self._waiting = WaitingQueue()
        self._running: list[Request] = []
        self._timed: dict[str, Request] = {}  # those with a deadline
        self._in_flight: dict[str, _Scheduled] = {}
        self._admitted_once: set[str] = set()
        self._branch_tokens: dict[str, int] = {}
        self._prompt_logprobs_seen: dict[str, int] = {}
        self._preemptions = 0
        self._no_room = False  # the last step had none for a waiting request, nor came any since

    @property
    def running(self) -> int:
        """Requests that hold a state slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that hold nothing yet, or no longer."""
        return len(self._waiting)

    @property
    def page_usage(self) -> float:
        """Fraction of pages held by running sequences."""
        return self._cache.page_usage

    def take_preemptions(self) -> int:
        """Preemptions since the last call."""
        taken, self._preemptions = self._preemptions, 0
        return taken

    def add(self, request: Request) -> None:
        """Queue a request whose prompt, and output from another engine, leave room for a token
        within max_model_len and its limit."""
        assert 0 < len(request.prompt_token_ids) <= request.token_count < self._max_model_len
        self._waiting.add(request)
        if request.deadline is not None:
            self._timed[request.request_id] = request

    def abort(self, request_id: str) -> None:
        """Forget a request at any moment; unknown ids (already finished) are ignored."""
        request = self._waiting.get(request_id)
        if request is not None:
            request.finish_reason = FinishReason.ABORTED
            # A step in flight still reads its pages and slot: `update` takes them back.
            if request_id not in self._in_flight:
                self._finish(request)

    def expire(self) -> list[Progress]:
        """End every request, running or waiting, whose deadline has passed. Between two steps."""
        assert not self._in_flight
        now = self._clock()
        expired = [r for r in self._timed.values() if r.deadline is not None and r.deadline <= now]
        for request in expired:
            request.finish_reason = FinishReason.DEADLINE
            self._finish(request)
        return [Progress(r, finish_reason=r.finish_reason) for r in expired]

    def schedule(self) -> Batch | None:
        """The next forward; None when there is nothing to run."""
        assert not self._in_flight
        batch = Batch([])
        self._make_way()
        if self._cache.pages_left < len(self._running):  # a decode takes one page at most
            self._running.sort(key=self._waiting.rank)
        budget = self._schedule_decodes(batch, self._max_batch_tokens)
        decodes = [scheduled.request for scheduled in self._in_flight.values()]
        # At most half of what the decodes leave, so that prompts always go on.
        drafts = choose_drafts(decodes, budget // 2, self._max_model_len)
        self._schedule_prompts(batch, budget - sum(map(len, drafts.values())))
        self._add_drafts(batch, drafts)
        return batch if batch.sequences else None

    def update(self, outputs: list[SequenceOutput]) -> list[Progress]:
        """Take the results of the last batch, one per scheduled sequence in any order. Returns what
        they brought, without requests of which only a part of the prompt was computed."""
        assert {o.request_id for o in outputs} == self._in_flight.keys()
        progress = [p for o in outputs for p in self._apply(self._in_flight[o.request_id], o)]
        self._in_flight.clear()
        for p in progress:
            if p.finish_reason is not None:
                self._finish(p.request)
        return [
            p
            for p in progress
            if p.finish_reason is not FinishReason.ABORTED
            and (p.token or p.prompt_logprobs or p.finish_reason)
        ]

    def check(self) -> None:
        """Assert that requests, pages and slots are consistent."""
        pinned = [
            snapshot
            for scheduled in self._in_flight.values()
            for snapshot in (scheduled.pinned, scheduled.kept)
            if snapshot is not None
        ]
        self._cache.check([*self._running, *self._waiting], pinned)
        self._waiting.check(self._running)
        known = {r.request_id for r in (*self._running, *self._waiting)}
        assert self._in_flight.keys() | self._branch_tokens.keys() <= known
        assert self._admitted_once | self._prompt_logprobs_seen.keys() <= known
        assert self._timed.keys() <= known
        assert len(self._running) <= self._max_sequences

    def _schedule_decodes(self, batch: Batch, budget: int) -> int:
        for request in list(self._running):
            end = request.token_count
            decodes = request.output_token_ids and request.computed_tokens > 0
            if not decodes or request.computed_tokens < end - 1:
                continue  # still a prompt, or preempted for a request before it
            if self._make_room(request, end):
                self._put(batch, request, end)
                budget -= 1
        return budget

    def _add_drafts(self, batch: Batch, chosen: dict[str, list[int]]) -> None:
        """Let decodes run on into their drafts as far as pages go. Last of all: nobody gives up a
        page or a slot for a guess."""
        page_tokens = self._cache.page_tokens
        for i, sequence in enumerate(batch.sequences):
            drafts = chosen.get(sequence.request_id)
            if drafts is None:
                continue
            scheduled = self._in_flight[sequence.request_id]
            request, end = scheduled.request, scheduled.end
            if not self._cache.extend(request, end + len(drafts)):
                drafts = drafts[: len(request.pages) * page_tokens - end]
            batch.sequences[i] = drafted = with_drafts(sequence, request, drafts)
            boundary = (end + drafted.draft_count) // page_tokens * page_tokens
            if boundary > end:
                assert drafted.draft_count < page_tokens, "two boundaries within one chunk"
                kept = self._keep(batch, request, boundary)
                self._in_flight[sequence.request_id] = replace(
                    scheduled, kept=kept, kept_tokens=boundary
                )

    def _schedule_prompts(self, batch: Batch, budget: int) -> None:
        """Spend `budget` on prompts in order of rank, which every chunk changes."""
        rank = self._waiting.rank
        prefills = [r for r in self._running if r.request_id not in self._in_flight]
        self._no_room = len(self._running) == self._max_sequences
        while budget > 0:
            prefills = [r for r in prefills if r.state_slot >= 0]  # the others were preempted
            running = min(prefills, key=rank, default=None)
            waiting = None if self._no_room else self._waiting.peek()
            if waiting is not None and (running is None or rank(waiting) < rank(running)):
                spent = self._admit(batch, waiting, budget)
                self._no_room = spent == 0
                budget -= spent
            elif running is not None:
                prefills.remove(running)
                end = self._chunk_end(running, budget)
                if self._make_room(running, end):
                    budget -= end - running.computed_tokens
                    self._put(batch, running, end)
            else:
                return

    def _admit(self, batch: Batch, request: Request, budget: int) -> int:
        """Start a waiting request; returns its tokens in this step, 0 if there is no room."""
        if len(self._running) == self._max_sequences:
            return 0
        admission = self._cache.admit(request, reuse=request.sampling.prompt_logprobs is None)
        if admission is None:
            return 0
        self._branch_tokens[request.request_id] = admission.branch_tokens
        end = self._chunk_end(request, budget)
        preempted_before = request.request_id in self._admitted_once
        if not self._cache.extend(request, request.token_count if preempted_before else end):
            self._cache.unpin(admission.snapshot)
            self._cache.vacate(request)
            return 0
        self._waiting.take(request)
        self._running.append(request)
        if not preempted_before:
            self._admitted_once.add(request.request_id)
            request.cache_hit_tokens = request.computed_tokens
        if admission.snapshot is None:
            batch.resets.append(request.state_slot)
        else:
            batch.copies_before.append(
                StateCopy(request.state_slot, admission.snapshot, request.computed_tokens)
            )
        self._put(batch, request, end, pinned=admission.snapshot)
        return end - request.computed_tokens

    def _chunk_end(self, request: Request, budget: int) -> int:
        """Where the next prompt chunk ends: as far as the budget goes, but where snapshots are kept
        if one of the state there is likely to be reused."""
        interval = self._cache.snapshot_interval_tokens
        start, total = request.computed_tokens, request.token_count
        end = min(total, start + budget)
        if not interval:
            return end
        branch = self._branch_tokens[request.request_id] // interval * interval
        if start < branch < end:
            return branch
        boundary = min(end, total - 1) // interval * interval
        if boundary > start and (end < total or not self._cache.has_snapshot(request, boundary)):
            return boundary
        return end

    def _make_room(self, request: Request, token_count: int) -> bool:
        """Get pages for `request`, at the cost of those after it that are not in this step."""
        while not self._cache.extend(request, token_count):
            idle = (r for r in self._running if r.request_id not in self._in_flight)
            victim = max(idle, key=self._waiting.rank)
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _make_way(self) -> None:
        """Preempt one request of worse priority for a waiting one that found no room."""
        waiting = self._waiting.peek() if self._no_room else None
        if waiting is not None and any(r.priority > waiting.priority for r in self._running):
            self._preempt(max(self._running, key=self._waiting.rank))

    def _preempt(self, request: Request) -> None:
        self._cache.vacate(request)
        self._running.remove(request)
        self._waiting.put_back(request)
        self._preemptions += 1

    def _put(self, batch: Batch, request: Request, end: int, *, pinned: int | None = None) -> None:
        """Add positions computed .. end-1 of `request` to the batch."""
        kept = self._keep(batch, request, end)
        ahead = request.token_ids(end, end + 1)  # of a prompt
        samples = not ahead and request.sampling.max_tokens > 0
        grammar = request.grammar if samples else None
        batch.sequences.append(
            ScheduledSequence(
                request_id=request.request_id,
                token_ids=request.token_ids(request.computed_tokens, end),
                start=request.computed_tokens,
                pages=list(request.pages),
                state_slot=request.state_slot,
                sampling=request.sampling,
                sample_position=end if samples else None,
                prompt_targets=self._prompt_targets(request, end),
                allowed_tokens=[grammar.allowed(request.output_token_ids)] if grammar else None,
                next_token_id=ahead[0] if ahead else None,
                known_tokens=self._cache.known_tokens(request),
            )
        )
        self._in_flight[request.request_id] = _Scheduled(request, end, pinned, kept, end)
        self._waiting.charge(request, end)

    def _keep(self, batch: Batch, request: Request, token_count: int) -> int | None:
        """Have the step keep a snapshot of `request` after `token_count` tokens, if one is to be
        kept there and can be."""
        kept = self._cache.reserve_snapshot(request, token_count)
        if kept is not None:
            batch.copies_after.append(StateCopy(request.state_slot, kept, token_count))
        return kept

    def _prompt_targets(self, request: Request, end: int) -> list[int] | None:
        """The prompt tokens that follow the chunk's positions, if their log-probabilities are
        asked for; one fewer than positions where the prompt ends."""
        if request.sampling.prompt_logprobs is None:
            return None
        targets = request.prompt_token_ids[request.computed_tokens + 1 : end + 1]
        return targets or None

    def _apply(self, scheduled: _Scheduled, output: SequenceOutput) -> list[Progress]:
        """Account for one sequence's step; sets the request's finish reason when it is done."""
        request = scheduled.request
        start = request.computed_tokens
        request.computed_tokens = scheduled.end
        self._cache.unpin(scheduled.pinned)
        if output.error is not None or request.finish_reason is not None:
            self._cache.unpin(scheduled.kept)
            request.finish_reason = request.finish_reason or FinishReason.ERROR
            return [Progress(request, finish_reason=request.finish_reason, error=output.error)]
        scored = self._new_prompt_logprobs(request, start, output.prompt_logprobs)
        progress: list[Progress] = []
        if scored or not output.tokens:
            request.finish_reason = self._finish_reason(request)
            progress.append(Progress(request, None, scored, request.finish_reason))
        taken = 0
        for token in output.tokens:
            taken += 1
            request.output_token_ids.append(token.token_id)
            request.finish_reason = self._finish_reason(request)
            progress.append(Progress(request, token, finish_reason=request.finish_reason))
            if request.finish_reason is not None:
                break
        if taken > 1:
            computed = scheduled.end + taken - 1  # with the accepted drafts
            self._waiting.charge(request, computed)
            request.computed_tokens = computed
        request.draft_token_ids = output.draft_token_ids
        self._commit(scheduled)
        return progress

    def _commit(self, scheduled: _Scheduled) -> None:
        kept = scheduled.kept
        if scheduled.request.computed_tokens < scheduled.kept_tokens:
            self._cache.unpin(kept)
            kept = None
        self._cache.commit(scheduled.request, kept)

    def _new_prompt_logprobs(
        self, request: Request, start: int, logprobs: list[TokenLogprob]
    ) -> list[TokenLogprob]:
        """Those not yet delivered: a preempted prompt is computed, and scored, again."""
        if not logprobs:
            return []
        seen = self._prompt_logprobs_seen.get(request.request_id, 0)
        fresh = logprobs[max(0, seen - start) :]
        self._prompt_logprobs_seen[request.request_id] = max(seen, start + len(logprobs))
        return fresh

    def _finish_reason(self, request: Request) -> FinishReason | None:
        output = request.output_token_ids
        if output and output[-1] in request.sampling.stop_token_ids:
            return FinishReason.STOP
        full = request.token_count >= self._max_model_len
        spent = len(output) >= request.sampling.max_tokens
        if request.computed_tokens >= len(request.prompt_token_ids) and (full or spent):
            return FinishReason.LENGTH
        return None

    def _finish(self, request: Request) -> None:
        self._cache.release(request)
        if request in self._running:
            self._running.remove(request)
            self._no_room = False
        self._waiting.forget(request)
        self._timed.pop(request.request_id, None)
        self._admitted_once.discard(request.request_id)
        self._branch_tokens.pop(request.request_id, None)
        self._prompt_logprobs_seen.pop(request.request_id, None)
