"""What one step holds: the batch, and what becomes of it. `Scheduler` fills one at a time, and
`ProgressTracker` settles it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from worker.batch import Batch, ScheduledSequence, StateCopy
from worker.cache.manager import CacheManager
from worker.request import Request
from worker.scheduler.drafts import with_drafts


@dataclass(slots=True)
class Scheduled:
    """A request's part in a step."""

    request: Request
    end: int
    pinned: int | None  # the snapshot this step copies from
    kept: int | None  # the snapshot this step fills
    kept_tokens: int  # how many tokens that is of; beyond `end` only if drafts are right


class Step:
    """A batch, and its requests' parts by request id."""

    def __init__(self, cache: CacheManager) -> None:
        self.batch = Batch([])
        self.in_flight: dict[str, Scheduled] = {}
        self._cache = cache

    def add(self, request: Request, end: int, pinned: int | None) -> None:
        """Compute positions computed .. `end`-1 of `request`, whose pages cover them. `pinned`: the
        snapshot its slot takes over before."""
        kept = self._keep(request, end)
        ahead = request.token_ids(end, end + 1)  # of a prompt
        samples = not ahead and request.sampling.max_tokens > 0
        grammar = request.grammar if samples else None
        self.batch.sequences.append(
            ScheduledSequence(
                request_id=request.request_id,
                token_ids=request.token_ids(request.computed_tokens, end),
                start=request.computed_tokens,
                pages=list(request.pages),
                state_slot=request.state_slot,
                sampling=request.sampling,
                sample_position=end if samples else None,
                prompt_targets=_prompt_targets(request, end),
                allowed_tokens=[grammar.allowed(request.output_token_ids)] if grammar else None,
                next_token_id=ahead[0] if ahead else None,
                known_tokens=self._cache.known_tokens(request),
            )
        )
        self.in_flight[request.request_id] = Scheduled(request, end, pinned, kept, end)

    def add_drafts(self, chosen: Mapping[str, list[int]]) -> None:
        """Let decodes run on into their drafts, by request id, as far as pages go. Last of all:
        nobody gives up a page or a slot for a guess."""
        page_tokens = self._cache.page_tokens
        for i, sequence in enumerate(self.batch.sequences):
            drafts = chosen.get(sequence.request_id)
            if drafts is None:
                continue
            scheduled = self.in_flight[sequence.request_id]
            request, end = scheduled.request, scheduled.end
            if not self._cache.extend(request, end + len(drafts)):
                drafts = drafts[: len(request.pages) * page_tokens - end]
            self.batch.sequences[i] = drafted = with_drafts(sequence, request, drafts)
            boundary = (end + drafted.draft_count) // page_tokens * page_tokens
            if boundary > end:
                assert drafted.draft_count < page_tokens, "two boundaries within one chunk"
                kept = self._keep(request, boundary)
                self.in_flight[sequence.request_id] = replace(
                    scheduled, kept=kept, kept_tokens=boundary
                )

    def snapshots(self) -> list[int]:
        """The snapshots that this step reads or fills."""
        parts = self.in_flight.values()
        return [s for part in parts for s in (part.pinned, part.kept) if s is not None]

    def _keep(self, request: Request, token_count: int) -> int | None:
        """Have the step keep a snapshot of `request` after `token_count` tokens, if one is to be
        kept there and can be."""
        kept = self._cache.reserve_snapshot(request, token_count)
        if kept is not None:
            self.batch.copies_after.append(StateCopy(request.state_slot, kept, token_count))
        return kept


def _prompt_targets(request: Request, end: int) -> list[int] | None:
    """The prompt tokens that follow the chunk's positions, if their log-probabilities are asked
    for; one fewer than positions where the prompt ends."""
    if request.sampling.prompt_logprobs is None:
        return None
    targets = request.prompt_token_ids[request.computed_tokens + 1 : end + 1]
    return targets or None
