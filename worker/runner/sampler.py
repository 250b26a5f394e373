"""Chooses the next token of every sequence from its logits. The model runner calls it.

A sampled token depends on its own row, parameters, seed and position alone: each draw is one
uniform number hashed from (seed, position), looked up in the row's cumulative distribution. The
same request gives the same tokens alone or in a crowd, on any device and any torch version.
"""

import hashlib
from collections.abc import Sequence

import torch

from worker.batch import TokenLogprob
from worker.request import SamplingParams

GREEDY_BELOW_TEMPERATURE = 1e-5


def sample(
    logits: torch.Tensor, sampling: Sequence[SamplingParams], positions: Sequence[int]
) -> list[TokenLogprob]:
    """One token per row of `logits` [R, V] float32, all finite.

    `positions[r]` is the number of tokens before the sampled one. Log-probabilities are those of
    the raw distribution: before bias, temperature and truncation.
    """
    raw = torch.log_softmax(logits, dim=-1)  # [R, V]
    token_ids = torch.empty(len(sampling), dtype=torch.long, device=logits.device)
    for r, (params, position) in enumerate(zip(sampling, positions, strict=True)):
        token_ids[r] = _choose(logits[r], params, position)
    chosen = raw.gather(1, token_ids[:, None])[:, 0]
    tops = [_top(raw[r], params.logprobs or 0) for r, params in enumerate(sampling)]
    return [
        TokenLogprob(token_id, logprob, top)
        for token_id, logprob, top in zip(token_ids.tolist(), chosen.tolist(), tops, strict=True)
    ]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a pure function of its arguments."""
    message = seed.to_bytes(8) + position.to_bytes(8)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest()) / 2**64


def _choose(logits: torch.Tensor, params: SamplingParams, position: int) -> torch.Tensor:
    """The token of one row [V], as a scalar tensor so that nothing waits for the device here."""
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        bias = torch.tensor(list(params.logit_bias.values()), device=logits.device)
        logits = logits.index_add(0, ids, bias.to(logits.dtype))
    if params.temperature < GREEDY_BELOW_TEMPERATURE:
        return logits.argmax()  # the first of equals
    probs = torch.softmax(logits.double() / params.temperature, dim=-1)
    probs = _truncate(probs, params)
    cumulative = probs.cumsum(dim=-1)
    target = cumulative[-1:] * uniform(params.seed, position)
    # right=True skips tokens of probability zero; rounding may still reach past the last possible.
    last = torch.searchsorted(cumulative, cumulative[-1:])
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)[0]


def _truncate(probs: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Zero what min_p, top_k and top_p exclude, in this order; the most likely token stays."""
    if params.min_p > 0.0:
        probs = probs.where(probs >= probs.max() * params.min_p, 0.0)
    if params.top_k == 0 and params.top_p >= 1.0:
        return probs
    ordered, ids = torch.sort(probs, descending=True, stable=True)  # lowest id first on a tie
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if params.top_k > 0:
        keep[params.top_k :] = False
    if params.top_p < 1.0:
        mass = (ordered * keep).sum() * params.top_p
        keep &= (ordered * keep).cumsum(0) - ordered < mass  # tokens until the mass is reached
        keep[0] = True
    return torch.zeros_like(probs).scatter(0, ids, ordered * keep)


def _top(logprobs: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` most likely tokens of one row [V], lowest id first on a tie."""
    if count == 0:
        return []
    values, ids = logprobs.topk(min(count, logprobs.shape[0]))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
