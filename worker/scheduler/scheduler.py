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

from worker.batch import Batch, SequenceOutput, StateCopy
from worker.cache.manager import CacheManager
from worker.request import FinishReason, Request
from worker.scheduler.drafts import choose_drafts
from worker.scheduler.progress import Progress, ProgressTracker
from worker.scheduler.step import Step
from worker.scheduler.waiting import WaitingQueue


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
        self._step = Step(cache)
        self._tracker = ProgressTracker(cache, self._waiting, max_model_len)
        self._admitted_once: set[str] = set()
        self._branch_tokens: dict[str, int] = {}
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
            if request_id not in self._step.in_flight:
                self._finish(request)

    def expire(self) -> list[Progress]:
        """End every request, running or waiting, whose deadline has passed. Between two steps."""
        assert not self._step.in_flight
        now = self._clock()
        expired = [r for r in self._timed.values() if r.deadline is not None and r.deadline <= now]
        for request in expired:
            request.finish_reason = FinishReason.DEADLINE
            self._finish(request)
        return [Progress(r, finish_reason=r.finish_reason) for r in expired]

    def schedule(self) -> Batch | None:
        """The next forward; None when there is nothing to run."""
        assert not self._step.in_flight
        step = self._step
        self._make_way()
        if self._cache.pages_left < len(self._running):  # a decode takes one page at most
            self._running.sort(key=self._waiting.rank)
        budget = self._schedule_decodes(self._max_batch_tokens)
        decodes = [scheduled.request for scheduled in step.in_flight.values()]
        # At most half of what the decodes leave, so that prompts always go on.
        drafts = choose_drafts(decodes, budget // 2, self._max_model_len)
        self._schedule_prompts(budget - sum(map(len, drafts.values())))
        step.add_drafts(drafts)
        return step.batch if step.batch.sequences else None

    def update(self, outputs: list[SequenceOutput]) -> list[Progress]:
        """Take the results of the last batch, one per scheduled sequence in any order. Returns what
        they brought, without requests of which only a part of the prompt was computed."""
        in_flight = self._step.in_flight
        assert {o.request_id for o in outputs} == in_flight.keys()
        self._step = Step(self._cache)
        apply = self._tracker.apply
        progress = [p for o in outputs for p in apply(in_flight[o.request_id], o)]
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
        self._cache.check([*self._running, *self._waiting], self._step.snapshots())
        self._waiting.check(self._running)
        known = {r.request_id for r in (*self._running, *self._waiting)}
        assert self._step.in_flight.keys() | self._branch_tokens.keys() <= known
        assert self._admitted_once | self._tracker.request_ids <= known
        assert self._timed.keys() <= known
        assert len(self._running) <= self._max_sequences

    def _schedule_decodes(self, budget: int) -> int:
        for request in list(self._running):
            end = request.token_count
            decodes = request.output_token_ids and request.computed_tokens > 0
            if not decodes or request.computed_tokens < end - 1:
                continue  # still a prompt, or preempted for a request before it
            if self._make_room(request, end):
                self._put(request, end)
                budget -= 1
        return budget

    def _schedule_prompts(self, budget: int) -> None:
        """Spend `budget` on prompts in order of rank, which every chunk changes."""
        rank = self._waiting.rank
        prefills = [r for r in self._running if r.request_id not in self._step.in_flight]
        self._no_room = len(self._running) == self._max_sequences
        while budget > 0:
            prefills = [r for r in prefills if r.state_slot >= 0]  # the others were preempted
            running = min(prefills, key=rank, default=None)
            waiting = None if self._no_room else self._waiting.peek()
            if waiting is not None and (running is None or rank(waiting) < rank(running)):
                spent = self._admit(waiting, budget)
                self._no_room = spent == 0
                budget -= spent
            elif running is not None:
                prefills.remove(running)
                end = self._chunk_end(running, budget)
                if self._make_room(running, end):
                    budget -= end - running.computed_tokens
                    self._put(running, end)
            else:
                return

    def _admit(self, request: Request, budget: int) -> int:
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
            self._step.batch.resets.append(request.state_slot)
        else:
            self._step.batch.copies_before.append(
                StateCopy(request.state_slot, admission.snapshot, request.computed_tokens)
            )
        self._put(request, end, pinned=admission.snapshot)
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
            idle = (r for r in self._running if r.request_id not in self._step.in_flight)
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

    def _put(self, request: Request, end: int, *, pinned: int | None = None) -> None:
        """Compute positions computed .. end-1 of `request` in this step."""
        self._step.add(request, end, pinned)
        self._waiting.charge(request, end)

    def _finish(self, request: Request) -> None:
        self._cache.release(request)
        if request in self._running:
            self._running.remove(request)
            self._no_room = False
        self._waiting.forget(request)
        self._timed.pop(request.request_id, None)
        self._admitted_once.discard(request.request_id)
        self._branch_tokens.pop(request.request_id, None)
        self._tracker.forget(request.request_id)
