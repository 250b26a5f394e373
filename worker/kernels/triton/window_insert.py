"""Queries and key-values between their projections and attention: a head of a token a program.

A head is read and written once; its norm is one warp's sum.
"""

import torch
import triton
import triton.language as tl

from worker.kernels.entry_pool import SCALE_GROUP, EntryPool, kv_packing
from worker.kernels.reference.quantise import SMALLEST
from worker.kernels.triton.entry_format import normed, rounded_entry, turned, write_entry
from worker.kernels.triton.pool import entry_constants
from worker.kernels.triton.rounding import narrowed
from worker.kernels.triton.variant import Variant


@triton.jit
def heads_kernel(
    query,  # [T, HEADS, WIDTH]
    kv,  # [T, WIDTH]
    kv_norm,  # [WIDTH]
    angles,  # [T, PAIRS, 2]
    pool,  # [blocks, entries, WIDTH], or bytes
    stored_at,  # [T], or None
    eps,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
    ROUND_GROUP: tl.constexpr,  # channels that share a scale; 0 does not round
    SMALLEST: tl.constexpr,
    WIDTH: tl.constexpr,
    PACKING: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)  # the one after the last is the key-value
    channel = tl.arange(0, BLOCK_D)
    inside = channel < WIDTH
    turn = angles + token * (2 * PAIRS)
    if head < HEADS:
        at = query + (token * HEADS + head) * WIDTH + channel
        x = normed(tl.load(at, mask=inside, other=0.0).to(tl.float32), eps, WIDTH)
        # Rounded where the reference rounds, so that the two seldom differ.
        x = narrowed(x, query.dtype.element_ty).to(tl.float32)
        x = turned(x, channel, turn, WIDTH, PAIRS)
        tl.store(at, narrowed(x, query.dtype.element_ty), mask=inside)
    else:
        at = kv + token * WIDTH + channel
        x = normed(tl.load(at, mask=inside, other=0.0).to(tl.float32), eps, WIDTH)
        x *= tl.load(kv_norm + channel, mask=inside, other=0.0).to(tl.float32)
        x = narrowed(x, kv.dtype.element_ty).to(tl.float32)
        x = turned(x, channel, turn, WIDTH, PAIRS)
        x = narrowed(x, kv.dtype.element_ty).to(tl.float32)
        if ROUND_GROUP:
            x = rounded_entry(x, channel, WIDTH - 2 * PAIRS, ROUND_GROUP, SMALLEST)
        tl.store(at, narrowed(x, kv.dtype.element_ty), mask=inside)
        if stored_at is not None:
            row = tl.load(stored_at + token).to(tl.int64)
            write_entry(x, channel, pool, row, WIDTH, PACKING, GROUP)


def prepare_heads_(
    query: torch.Tensor,  # [T, H, D]
    kv: torch.Tensor,  # [T, D]
    kv_norm: torch.Tensor,  # [D]
    angles: torch.Tensor,  # [T, r]
    window: EntryPool,
    stored_at: torch.Tensor | None,  # [T] rows of the window; None writes nothing there
    *,
    eps: float,
    rounded: bool,
) -> None:
    """In place: both normalised and rotated, `kv` then rounded as `quantise_entry_` does."""
    tokens, heads, width = query.shape
    assert query.is_contiguous()
    assert kv.is_contiguous()
    if tokens == 0:
        return
    constants = entry_constants(window.packing, width)
    heads_kernel[tokens, heads + 1](
        query,
        kv,
        kv_norm,
        torch.view_as_real(angles),
        window.data,
        stored_at,
        eps,
        HEADS=heads,
        PAIRS=angles.shape[1],
        ROUND_GROUP=min(SCALE_GROUP, constants["BLOCK_D"]) if rounded else 0,
        SMALLEST=SMALLEST,
        **constants,
        num_warps=1,
    )


def _variant(name: str, inserts: bool) -> Variant:
    types = {"query": "*bf16", "kv": "*bf16", "kv_norm": "*fp32", "angles": "*fp32", "pool": "*u8"}
    constants = entry_constants(kv_packing(128, 512, 64), 512)
    constants |= {"HEADS": 64, "PAIRS": 32, "ROUND_GROUP": SCALE_GROUP, "SMALLEST": SMALLEST}
    if inserts:
        types["stored_at"] = "*i64"
    else:
        constants["stored_at"] = None
    return Variant(name, heads_kernel, {**types, "eps": "fp32"}, constants, warps=1)


VARIANTS = (
    _variant("heads and window insert", inserts=True),
    _variant("heads of a chunk", inserts=False),
)
