"""Which drafts are worth a place in a forward. `Scheduler` calls it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from worker.batch import ScheduledSequence
from worker.request import Request


def choose_drafts(
    decodes: Iterable[Request], budget: int, max_model_len: int
) -> dict[str, list[int]]:
    """Drafts to try behind `decodes`, by request id: together at most `budget` tokens, first come
    first served."""
    chosen: dict[str, list[int]] = {}
    for request in decodes:
        if not request.draft_token_ids:
            continue
        drafts = _worth_trying(request, max_model_len)[:budget]
        if drafts:
            chosen[request.request_id] = drafts
            budget -= len(drafts)
    return chosen


def _worth_trying(request: Request, max_model_len: int) -> list[int]:
    """The drafts of `request` whose success would bring it another token: the forward brings one
    more token than drafts, and none after a stop token."""
    wanted = request.sampling.max_tokens - len(request.output_token_ids)
    room = max_model_len - request.token_count
    drafts = request.draft_token_ids[: max(0, min(wanted, room) - 1)]
    stops = request.sampling.stop_token_ids
    stop = next((i for i, token_id in enumerate(drafts) if token_id in stops), len(drafts))
    return drafts[:stop]


def with_drafts(
    sequence: ScheduledSequence, request: Request, drafts: Sequence[int]
) -> ScheduledSequence:
    """`sequence`, which decodes, continued with those of `drafts` that the grammar allows."""
    allowed = sequence.allowed_tokens
    if allowed is not None:
        assert request.grammar is not None
        ahead = request.grammar.allowed_after(drafts)
        drafts = drafts[: len(ahead)]
        allowed = [*allowed, *ahead]
    return replace(
        sequence,
        token_ids=[*sequence.token_ids, *drafts],
        pages=list(request.pages),
        allowed_tokens=allowed,
        draft_count=len(drafts),
    )
