"""What a step brought each of its requests, and which of them it finished. `Scheduler` calls it."""

from collections.abc import Set
from dataclasses import dataclass, field

from worker.batch import SequenceOutput, TokenLogprob
from worker.cache.manager import CacheManager
from worker.request import FinishReason, Request
from worker.scheduler.step import Scheduled
from worker.scheduler.waiting import WaitingQueue


@dataclass(slots=True)
class Progress:
    """One token, or less, that a step brought. `finish_reason` is set on a request's last one."""

    request: Request
    token: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None


class ProgressTracker:
    """Accounts for the results of steps: in the requests, in the cache and in what their keys have
    been served."""

    def __init__(self, cache: CacheManager, waiting: WaitingQueue, max_model_len: int) -> None:
        self._cache = cache
        self._waiting = waiting
        self._max_model_len = max_model_len
        self._prompt_logprobs_seen: dict[str, int] = {}

    @property
    def request_ids(self) -> Set[str]:
        """Requests of which something is remembered, until `forget`."""
        return self._prompt_logprobs_seen.keys()

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._prompt_logprobs_seen.pop(request_id, None)

    def apply(self, scheduled: Scheduled, output: SequenceOutput) -> list[Progress]:
        """Account for one sequence's step; sets the request's finish reason when it is done."""
        request = scheduled.request
        start = request.computed_tokens
        request.computed_tokens = scheduled.end
        self._cache.unpin(scheduled.pinned)
        if output.error is not None or request.finish_reason is not None:
            self._cache.unpin(scheduled.kept)
            if output.error is not None:
                self._cache.distrust(request)
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

    def _commit(self, scheduled: Scheduled) -> None:
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
