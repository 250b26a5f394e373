"""Chooses the next token of every sequence from its logits. The model runner calls it.

A sampled token depends on its own row, parameters, seed and position alone: every token id gets an
exponential number hashed from (seed, position, id), and the lowest ratio of that to the token's
probability wins, which is a draw from the distribution. Unlike a look-up in the cumulative
distribution, where rounding moves every one of the vocabulary's edges, it does not notice the last
bits of the logits: the same request gives the same tokens alone or in a crowd, on any device and
any torch version.
"""

import hashlib
import struct
from collections.abc import Sequence

import torch

from worker.batch import TokenLogprob
from worker.request import SamplingParams

GREEDY_BELOW_TEMPERATURE = 1e-5
NUCLEUS_GUESS = 1024  # tokens sorted at first to find those of top_p
NUCLEUS_GROWTH = 16
NO_TOKEN = -1  # in place of a token where logits are not finite


def sample(
    logits: torch.Tensor,
    sampling: Sequence[SamplingParams],
    positions: Sequence[int],
    allowed: Sequence[bytes | None] | None = None,
) -> list[TokenLogprob]:
    """One token per row of `logits` [R, V] float32; its id is NO_TOKEN where they are not finite,
    which comes from the device along with the others' ids.

    `positions[r]` is the number of tokens before the sampled one; `allowed[r]` has one bit per
    token id that may be sampled, lowest first (None: all of them). Log-probabilities are those of
    the raw distribution: before bias, grammar, temperature and truncation. Rows that ask for none
    get none: over a whole vocabulary they cost more than the choice.
    """
    token_ids = choose(logits, sampling, positions, allowed)
    told = token_ids.masked_fill(~finite(logits), NO_TOKEN).tolist()
    tokens = [TokenLogprob(token_id, None) for token_id in told]
    for r, params in enumerate(sampling):
        if params.logprobs is not None and told[r] != NO_TOKEN:
            raw = torch.log_softmax(logits[r], dim=-1)
            tokens[r].logprob = float(raw[token_ids[r]])
            tokens[r].top = _top(raw, params.logprobs)
    return tokens


def finite(rows: torch.Tensor) -> torch.Tensor:
    """Which of rows [R, V] are finite throughout: a sum carries every NaN and infinity."""
    return torch.isfinite(rows.sum(-1))


def choose(
    logits: torch.Tensor,
    sampling: Sequence[SamplingParams],
    positions: Sequence[int],
    allowed: Sequence[bytes | None] | None = None,
) -> torch.Tensor:
    """The token ids [R] of `sample`. Here `logits` may be anything: an id comes of it."""
    token_ids = _first_highest(logits)
    masks = [None] * len(sampling) if allowed is None else allowed
    for r, (params, position, mask) in enumerate(zip(sampling, positions, masks, strict=True)):
        if not _is_greedy(params) or params.logit_bias or mask is not None:
            token_ids[r] = _choose(logits[r], params, position, mask)
    return token_ids


def exponentials(seed: int, position: int, size: int, device: torch.device) -> torch.Tensor:
    """[size] float32 numbers > 0 of the standard exponential distribution; number i is a pure
    function of (seed, position, i)."""
    message = seed.to_bytes(8) + position.to_bytes(8)
    first, second = struct.unpack("<ii", hashlib.blake2b(message, digest_size=8).digest())
    # A 32-bit multiply-and-shift hash in place; & makes the arithmetic shifts logical.
    bits = torch.arange(size, dtype=torch.int32, device=device)
    bits.mul_(-0x61C88647).add_(first)
    bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF)).mul_(0x21F0AAAD)
    bits.bitwise_xor_(second)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF)).mul_(0x735A2D97)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF)).bitwise_and_(0x7FFFFFFF)
    uniform = bits.float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_()


def _choose(
    logits: torch.Tensor, params: SamplingParams, position: int, allowed: bytes | None
) -> torch.Tensor:
    """The token of one row [V], as a scalar tensor."""
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        bias = torch.tensor(list(params.logit_bias.values()), device=logits.device)
        logits = logits.index_add(0, ids, bias.to(logits.dtype))
    if allowed is not None:
        logits = logits.masked_fill(~_bits(allowed, logits), -torch.inf)
    if _is_greedy(params):
        return _first_highest(logits)
    probs = torch.softmax(logits / params.temperature, dim=-1)
    probs = _truncate(probs, params)
    return _first_highest(probs / exponentials(params.seed, position, len(probs), probs.device))


def _is_greedy(params: SamplingParams) -> bool:
    return params.temperature < GREEDY_BELOW_TEMPERATURE


def _first_highest(rows: torch.Tensor) -> torch.Tensor:
    """Index [...] of the first of the highest of rows [..., V]. On the CPU several times faster
    than `argmax`."""
    return rows.max(dim=-1).indices


def _bits(allowed: bytes, logits: torch.Tensor) -> torch.Tensor:
    """The mask [V] for one row of logits; ids beyond its end are not allowed."""
    packed = torch.frombuffer(bytearray(allowed), dtype=torch.uint8).to(logits.device)
    shifts = torch.arange(8, dtype=torch.uint8, device=logits.device)
    bits = ((packed[:, None] >> shifts) & 1).flatten().bool()[: logits.shape[0]]
    return torch.nn.functional.pad(bits, (0, logits.shape[0] - bits.shape[0]))


def _truncate(probs: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Zero what min_p, top_k and top_p exclude, in this order; the most likely token stays."""
    if params.min_p > 0.0:
        probs = probs.where(probs >= probs.max() * params.min_p, 0.0)
    if params.top_k > 0:
        ordered, ids = _most_likely(probs, params.top_k)
        ordered, ids = ordered[: params.top_k], ids[: params.top_k]
        kept = _nucleus(ordered, params.top_p * float(ordered.sum(dtype=torch.float64)))
    elif params.top_p < 1.0:
        # Sorting a whole vocabulary costs many times a forward's share; seldom is it needed.
        mass = params.top_p * float(probs.sum(dtype=torch.float64))
        count = NUCLEUS_GUESS
        ordered, ids = _most_likely(probs, count)
        while count < len(probs) and float(ordered.sum(dtype=torch.float64)) < mass:
            count *= NUCLEUS_GROWTH
            ordered, ids = _most_likely(probs, count)
        kept = _nucleus(ordered, mass)
    else:
        return probs
    return torch.zeros_like(probs).scatter(0, ids[:kept], ordered[:kept])


def _most_likely(probs: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` highest of one row and all that equal the last of them, in descending order,
    lowest id first on a tie; and their ids."""
    least = probs.topk(min(count, len(probs)), sorted=False).values.min()
    ids = ((probs >= least) & (probs > 0)).nonzero().squeeze(1)  # a grammar may leave few
    ordered, order = probs[ids].sort(descending=True, stable=True)
    return ordered, ids[order]


def _nucleus(ordered: torch.Tensor, mass: float) -> int:
    """How many of the descending probabilities it takes to reach `mass`; at least one."""
    before = ordered.cumsum(0, dtype=torch.float64) - ordered
    return max(1, int((before < mass).sum()))


def _top(logprobs: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` most likely tokens of one row [V], lowest id first on a tie."""
    if count == 0:
        return []
    values, ids = logprobs.topk(min(count, logprobs.shape[0]))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
