"""From one sublayer to the next in one pass: the next streams, and what they add to the products.

Streams that `stream_mixing.spread` would write and `stream_projection` read back at once stay on
the chip between the two. `hyper_connection` calls it, and `mix` after it.
"""

import torch
import triton
import triton.language as tl

from worker.kernels.triton.stream_projection import (
    accumulate,
    block_of_tokens,
    fn_tile,
    number_of_splits,
    padded,
    store_partials,
)
from worker.kernels.triton.variant import Variant

BLOCK_D = 32
MAX_REGISTERS = 128  # leaves room for two of the large programs, and spills nothing


@triton.jit
def advance_kernel(
    y,  # [T, WIDTH]
    streams,  # [T, N, WIDTH]
    post,  # [T, N]
    comb,  # [T, N, N]
    fn,  # [COLUMNS, N * WIDTH]
    out,  # [T, N, WIDTH]
    partials,  # [splits, COLUMNS + 1, T]
    tokens,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT: tl.constexpr,
):
    split = tl.program_id(0)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    # Tokens past the last do again what is done for the last.
    row = tl.minimum(token, tokens - 1).to(tl.int64)[:, None]
    added_weight: tl.tuple = ()
    for k in tl.static_range(N):
        added_weight += (tl.load(post + row * N + k),)
    old_weight: tl.tuple = ()
    for i in tl.static_range(N * N):
        old_weight += (tl.load(comb + row * (N * N) + i),)
    acc = tl.zeros([PADDED, BLOCK_T], tl.float32)
    squares = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for step in range(split * STEPS, split * STEPS + STEPS):
        channel = (step * BLOCK_D + tl.arange(0, BLOCK_D))[None, :]
        inside = channel < WIDTH
        # Nobody reads the old streams and y after this.
        added = tl.load(
            y + row * WIDTH + channel, mask=inside, other=0.0, eviction_policy="evict_first"
        ).to(tl.float32)
        old: tl.tuple = ()
        for j in tl.static_range(N):
            at = (row * N + j) * WIDTH + channel
            x = tl.load(streams + at, mask=inside, other=0.0, eviction_policy="evict_first")
            old += (x.to(tl.float32),)
        for k in tl.static_range(N):
            new = added_weight[k] * added
            for j in tl.static_range(N):
                new += old_weight[j * N + k] * old[j]
            new = new.to(out.dtype.element_ty)
            tl.store(out + (row * N + k) * WIDTH + channel, new, mask=inside)
            f = fn_tile(fn, k * WIDTH + channel, N * WIDTH, COLUMNS, PADDED)
            acc = accumulate(f, new, acc, DOT)
            squares += new.to(tl.float32) * new.to(tl.float32)
    store_partials(partials, acc, squares, split, token, tokens, COLUMNS, PADDED)


def advance(
    y: torch.Tensor,
    streams: torch.Tensor,
    post: torch.Tensor,
    comb: torch.Tensor,
    fn: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next streams [T, n, D], as `spread` gives them, and what `project` gives of these."""
    tokens, n, width = streams.shape
    columns, steps = len(fn), triton.cdiv(width, BLOCK_D)
    splits, block = number_of_splits(tokens, steps), block_of_tokens(tokens)
    out = torch.empty_like(streams)
    partials = fn.new_empty(splits, columns + 1, tokens)
    advance_kernel[splits, triton.cdiv(tokens, block)](
        y,
        streams,
        post,
        comb,
        fn,
        out,
        partials,
        tokens,
        N=n,
        WIDTH=width,
        COLUMNS=columns,
        PADDED=padded(columns),
        STEPS=triton.cdiv(steps, splits),
        BLOCK_T=block,
        BLOCK_D=BLOCK_D,
        DOT=tl.bfloat16 if streams.is_cuda else tl.float32,
        num_warps=warps_of(block),
        num_stages=2,
        maxnreg=MAX_REGISTERS,
    )
    return out, partials


def warps_of(block: int) -> int:
    """Warps of a program of `block` tokens: what it keeps in registers takes eight for 64."""
    return 8 if block == 64 else 4


def _variant(name: str, tokens: int) -> Variant:
    pointers = {"y": "*bf16", "streams": "*bf16", "post": "*fp32", "comb": "*fp32"}
    pointers |= {"fn": "*fp32", "out": "*bf16", "partials": "*fp32"}
    return Variant(
        name,
        advance_kernel,
        pointers | {"tokens": "i32"},
        {
            "N": 4,
            "WIDTH": 4096,
            "COLUMNS": 24,
            "PADDED": padded(24),
            "STEPS": 4096 // BLOCK_D // number_of_splits(tokens, 4096 // BLOCK_D),
            "BLOCK_T": block_of_tokens(tokens),
            "BLOCK_D": BLOCK_D,
            "DOT": tl.bfloat16,
        },
        warps=warps_of(block_of_tokens(tokens)),
        stages=2,
        max_registers=MAX_REGISTERS,
    )


VARIANTS = (
    _variant("mhc advance, 64 tokens", 64),
    _variant("mhc advance, 4096 tokens", 4096),
)
