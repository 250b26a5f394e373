"""From projected tokens to stored cache entries in one pass: an entry is a program.

A channel of an entry is a softmax over its tokens, so threads own channels and walk through the
tokens; of CSA's overlapping columns each is read by one entry alone. Norm, rotation, rounding and
packing then happen in registers.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from worker.kernels.entry_pool import SCALE_GROUP, EntryPool, Packing, index_packing, kv_packing
from worker.kernels.reference.quantise import INDEX_BLOCK, SMALLEST
from worker.kernels.triton.entry_format import normed, rounded_entry, turned, write_entry
from worker.kernels.triton.pool import entry_constants
from worker.kernels.triton.quantise import INDEX_SMALLEST, rounded_index
from worker.kernels.triton.variant import Variant

FEW_TOKENS = 8  # one after the other; of more, as many side by side
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)


@triton.jit
def compress_kernel(
    rows,  # [T, 2, COLUMNS]
    tail,  # [slots, ring, 2, COLUMNS]
    slots,  # [S]
    sources,  # [E, TOKENS]
    bias,  # [OWN, COLUMNS]
    norm,  # [WIDTH]
    angles,  # [E, PAIRS, 2]
    pool,  # [blocks, entries, WIDTH], or bytes
    stored_at,  # [E]
    chunk,  # T
    absent,  # T + S * ring
    ring,
    eps,
    factor,  # WIDTH ** -0.5
    TOKENS: tl.constexpr,
    OWN: tl.constexpr,
    STEP: tl.constexpr,
    UNROLL: tl.constexpr,
    PAIRS: tl.constexpr,
    ROUNDING: tl.constexpr,
    ROUND_GROUP: tl.constexpr,
    SMALLEST: tl.constexpr,
    WIDTH: tl.constexpr,
    PACKING: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    columns: tl.constexpr = TOKENS // OWN * WIDTH
    entry = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK_D)
    inside = (channel < WIDTH)[None, :]
    best = tl.full([STEP, BLOCK_D], LOWEST, tl.float32)
    weight = tl.zeros([STEP, BLOCK_D], tl.float32)
    total = tl.zeros([STEP, BLOCK_D], tl.float32)
    for first in tl.range(0, TOKENS, STEP, loop_unroll_factor=UNROLL):
        token = first + tl.arange(0, STEP)
        source = tl.load(sources + entry * TOKENS + token).to(tl.int64)
        earlier = source - chunk
        slot = tl.load(slots + earlier // ring, mask=(earlier >= 0) & (source < absent), other=0)
        row = tl.where(earlier < 0, source, slot * ring + earlier % ring)
        column = (token // OWN * WIDTH)[:, None] + channel[None, :]
        at = row[:, None] * (2 * columns) + column
        present = (source < absent)[:, None] & inside
        base = tl.where((earlier < 0)[:, None], rows + at, tail + at)
        value = tl.load(base, mask=present, other=0.0)
        score = tl.load(base + columns, mask=present, other=float("-inf"))
        score += tl.load(bias + (token % OWN * columns)[:, None] + column, mask=inside, other=0.0)
        best, weight, total = taken_in(best, weight, total, value, score)
    highest = tl.max(best, 0)
    fade = tl.exp(best - highest[None, :])
    weights = tl.where(channel < WIDTH, tl.sum(weight * fade, 0), 1.0)
    x = tl.sum(total * fade, 0) / weights
    x = normed(x, eps, WIDTH)
    x *= tl.load(norm + channel, mask=channel < WIDTH, other=0.0).to(tl.float32)
    x = turned(x, channel, angles + entry * (2 * PAIRS), WIDTH, PAIRS)
    if ROUNDING == "entry":
        x = rounded_entry(x, channel, WIDTH - 2 * PAIRS, ROUND_GROUP, SMALLEST)
    elif ROUNDING == "index":
        x = rounded_index(x, factor, WIDTH, ROUND_GROUP, SMALLEST)
    row = tl.load(stored_at + entry).to(tl.int64)
    write_entry(x, channel, pool, row, WIDTH, PACKING, GROUP)


@triton.jit
def taken_in(best, weight, total, value, score):
    """One more token in a running softmax: the highest score, the weights' sum, and the sum of
    weighted values. `best` begins at the lowest finite number: the first tokens may be absent."""
    higher = tl.maximum(best, score)
    fade, share = tl.exp(best - higher), tl.exp(score - higher)
    return higher, weight * fade + share, total * fade + share * value


def compress_entries(
    rows: torch.Tensor,  # [T, 2, W] float32: value and score projections of a chunk's tokens
    tail: torch.Tensor,  # [slots, R, 2, W] those of earlier tokens
    slots: torch.Tensor,  # [S] slots of the sequences
    sources: torch.Tensor,  # [E, n] a row, or T + a row of the S tails, or T + S * R: absent
    bias: torch.Tensor,  # [ratio, W] added to the scores by position
    norm: torch.Tensor,  # [D]
    angles: torch.Tensor,  # [E, r] of the entries' positions
    pool: EntryPool,
    stored_at: torch.Tensor,  # [E] rows of the pool
    *,
    eps: float,
    rounding: str,  # "none", "entry" as `quantise_entry_`, "index" as `quantise_index`
) -> None:
    """Write E entries, each pooled from n tokens, the last `ratio` of them its own. If there are
    twice as many, W = 2D: the earlier half gives its first D columns, the entry's own the others.
    """
    if len(sources) == 0:  # most decode steps finish no entry
        return
    constants = _constants(
        sources.shape[1], len(bias), len(norm), angles.shape[1], pool.packing, rounding
    )
    ring = tail.shape[1]
    compress_kernel[len(sources),](
        rows.contiguous(),
        tail,
        slots,
        sources,
        bias,
        norm,
        torch.view_as_real(angles),
        pool.data,
        stored_at,
        len(rows),
        len(rows) + len(slots) * ring,
        ring,
        eps,
        math.pow(len(norm), -0.5),
        **constants,
        num_warps=_warps(constants),
    )


def _constants(
    tokens: int, own: int, width: int, pairs: int, packing: Packing | None, rounding: str
) -> dict[str, Any]:
    constants = entry_constants(packing, width)
    group = INDEX_BLOCK if rounding == "index" else SCALE_GROUP
    return constants | {
        "TOKENS": tokens,
        "OWN": own,
        "STEP": 1 if tokens <= FEW_TOKENS else math.gcd(tokens, FEW_TOKENS),
        "UNROLL": tokens if tokens <= FEW_TOKENS else 1,
        "PAIRS": pairs,
        "ROUNDING": rounding,
        "ROUND_GROUP": min(group, constants["BLOCK_D"]),
        "SMALLEST": INDEX_SMALLEST if rounding == "index" else SMALLEST,
    }


def _warps(constants: dict[str, Any]) -> int:
    """Four channels of one token a thread, or of two."""
    elements = constants["STEP"] * constants["BLOCK_D"]
    return int(min(16, max(1, elements // 128)))


def _variant(
    name: str, tokens: int, own: int, width: int, packing: Packing, rounding: str
) -> Variant:
    floats = dict.fromkeys(("rows", "tail", "bias", "norm", "angles"), "*fp32")
    indices = dict.fromkeys(("slots", "sources", "stored_at"), "*i64")
    counts = dict.fromkeys(("chunk", "absent", "ring"), "i32")
    types = {**floats, **indices, **counts, "pool": "*u8"}
    constants = _constants(tokens, own, width, 32, packing, rounding)
    return Variant(
        f"compress, {name}",
        compress_kernel,
        {**types, "eps": "fp32", "factor": "fp32"},
        constants,
        _warps(constants),
    )


VARIANTS = (
    _variant("CSA", 8, 4, 512, kv_packing(64, 512, 64), "entry"),
    _variant("HCA", 128, 128, 512, kv_packing(2, 512, 64), "entry"),
    _variant("index key", 8, 4, 128, index_packing(64, 128), "index"),
)
