"""Draws what follows each sequence and its drafts, as far as these prove right.

A draw is a pure function of logits, parameters, seed and position (`sampler`). So a draft is right
exactly when it equals the token drawn before it, greedy or not, and the logits behind it are then
those that a forward without drafts would come to next: no draft ever changes the output. The model
runner calls it.
"""

from collections.abc import Sequence
from itertools import islice, takewhile

import torch

from worker.batch import ScheduledSequence, TokenLogprob
from worker.request import SamplingParams
from worker.runner.sampler import NO_TOKEN, sample


def verify(
    sequences: Sequence[ScheduledSequence], logits: torch.Tensor
) -> list[list[TokenLogprob]]:
    """What follows each of `sequences`, all of which sample: up to 1 + draft_count tokens; none
    where not even the first can be drawn. `logits` [R, vocab] has 1 + draft_count rows of each."""
    rows: list[int] = []
    sampling: list[SamplingParams] = []
    positions: list[int] = []
    masks: list[bytes | None] = []
    drawable: list[int] = []  # of each sequence, rows that a token can be drawn from
    first = 0
    for s in sequences:
        assert s.sample_position is not None
        allowed: Sequence[bytes | None] = s.allowed_tokens or [None] * (1 + s.draft_count)
        count = 0
        while count <= s.draft_count and allowed[count] != b"":
            rows.append(first + count)
            positions.append(s.sample_position + count)
            masks.append(allowed[count])
            count += 1
        sampling += [s.sampling] * count
        drawable.append(count)
        first += 1 + s.draft_count
    logits = logits if len(rows) == len(logits) else logits[rows]
    drawn = iter(sample(logits, sampling, positions, masks))
    return [
        _accepted(s.draft_token_ids, list(islice(drawn, count)))
        for s, count in zip(sequences, drawable, strict=True)
    ]


def _accepted(drafts: list[int], drawn: list[TokenLogprob]) -> list[TokenLogprob]:
    """`drawn` up to the first token that its draft did not foresee, with that token; nothing from
    where there is none."""
    drawn = list(takewhile(lambda token: token.token_id != NO_TOKEN, drawn))
    for i, (draft, token) in enumerate(zip(drafts, drawn, strict=False)):
        if draft != token.token_id:
            return drawn[: i + 1]
    return drawn
