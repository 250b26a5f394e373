"""The compressor's pooling alone: a softmax over tokens, channel by channel."""

import torch
import triton
import triton.language as tl

from worker.kernels.triton.variant import Variant

BLOCK_D = 128
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)


@triton.jit
def pool_kernel(
    rows,  # [E, TOKENS, 2, WIDTH]
    out,  # [E, WIDTH]
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    entry = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = channel < WIDTH
    at = rows + entry * (TOKENS * 2 * WIDTH) + channel
    best = tl.full([BLOCK_D], LOWEST, tl.float32)
    weight = tl.zeros([BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    for _ in range(TOKENS):
        value = tl.load(at, mask=inside, other=0.0)
        score = tl.load(at + WIDTH, mask=inside, other=0.0)
        best, weight, total = taken_in(best, weight, total, value, score)
        at += 2 * WIDTH
    tl.store(out + entry * WIDTH + channel, total / weight, mask=inside)


@triton.jit
def taken_in(best, weight, total, value, score):
    """One more token in a running softmax: the highest score, the weights' sum, and the sum of
    weighted values. `best` begins at the lowest finite number: the first tokens may be absent."""
    higher = tl.maximum(best, score)
    fade, share = tl.exp(best - higher), tl.exp(score - higher)
    return higher, weight * fade + share, total * fade + share * value


def pool_entries(rows: torch.Tensor) -> torch.Tensor:
    """rows [E, n, 2, D] float32, a value and a score per token and channel, to [E, D]. A score of
    minus infinity leaves its token out."""
    entries, tokens, _, width = rows.shape
    out = rows.new_empty(entries, width)
    if entries:
        pool_kernel[entries, triton.cdiv(width, BLOCK_D)](
            rows.contiguous(), out, TOKENS=tokens, WIDTH=width, BLOCK_D=BLOCK_D, num_warps=1
        )
    return out


VARIANTS = tuple(
    Variant(
        f"pool, {tokens} tokens",
        pool_kernel,
        {"rows": "*fp32", "out": "*fp32"},
        {"TOKENS": tokens, "WIDTH": width, "BLOCK_D": BLOCK_D},
        warps=1,
    )
    for tokens, width in ((8, 512), (128, 512), (8, 128))
)
