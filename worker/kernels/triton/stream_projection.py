"""The skinny product behind hyper-connections: streams [T, n*D] by a float32 matrix of n(n+2) rows.

A program takes some tokens and a slice of the channels, and writes what they add to each product,
with the sum of squares as one more column; `stream_mixing` adds the slices up in their order, so
that the same input always gives the same bits. `hyper_connection` calls it.
"""

import torch
import triton
import triton.language as tl

from worker.kernels.triton.variant import Variant

BLOCK_K = 64
MOST_SPLITS = 16
PROGRAMS = 256  # about two for each of an H100's 132 multiprocessors


@triton.jit
def exact_dot(x, f, acc, DOT: tl.constexpr):
    """acc + x f^T of x [T, K] and a float32 f [C, K], exact but for the sums.

    A bfloat16 x needs no more than f in three bfloat16 parts: 8 bits of a mantissa each, 24 in all.
    """
    if x.dtype == tl.bfloat16:
        x = x.to(DOT)
        for _ in tl.static_range(3):
            part = f.to(tl.bfloat16)
            acc = tl.dot(x, tl.trans(part.to(DOT)), acc)
            f -= part.to(tl.float32)
    else:
        acc = tl.dot(x, tl.trans(f), acc, input_precision="ieee")
    return acc


@triton.jit
def store_partials(
    partials, acc, squares, split, token, tokens, COLUMNS: tl.constexpr, PADDED: tl.constexpr
):
    """acc [T, PADDED] and, as the column after the last, the rows' sums of squares."""
    column = tl.arange(0, PADDED)
    acc = tl.where(column[None, :] == COLUMNS, tl.sum(squares, 1)[:, None], acc)
    out = partials + (split * (COLUMNS + 1) + column[None, :]).to(tl.int64) * tokens
    kept = (token < tokens)[:, None] & (column <= COLUMNS)[None, :]
    tl.store(out + token[:, None], acc, mask=kept)


@triton.jit
def project_kernel(
    flat,  # [T, K]
    fn,  # [COLUMNS, K]
    partials,  # [splits, COLUMNS + 1, T]
    tokens,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DOT: tl.constexpr,
):
    split = tl.program_id(0)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.arange(0, PADDED)
    rows = flat + token.to(tl.int64)[:, None] * K
    acc = tl.zeros([BLOCK_T, PADDED], tl.float32)
    squares = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
    for step in range(split * STEPS, split * STEPS + STEPS):
        at = (step * BLOCK_K + tl.arange(0, BLOCK_K))[None, :]
        x = tl.load(rows + at, mask=(token < tokens)[:, None] & (at < K), other=0.0)
        f = tl.load(
            fn + column[:, None] * K + at,
            mask=(column < COLUMNS)[:, None] & (at < K),
            other=0.0,
            eviction_policy="evict_last",
        )
        acc = exact_dot(x, f, acc, DOT)
        squares += x.to(tl.float32) * x.to(tl.float32)
    store_partials(partials, acc, squares, split, token, tokens, COLUMNS, PADDED)


def block_of_tokens(tokens: int) -> int:
    """Tokens of one program: a full tensor core tile where there are enough of them."""
    return 64 if tokens >= 1024 else 16


def number_of_splits(tokens: int, steps: int) -> int:
    """Slices of `steps` blocks of channels, a power of two, that keep the device busy."""
    wanted = triton.cdiv(PROGRAMS, triton.cdiv(tokens, block_of_tokens(tokens)))
    return int(triton.next_power_of_2(min(wanted, MOST_SPLITS, steps)))


def padded(columns: int) -> int:
    """The least width of a dot that has room for `columns` and one more."""
    return int(max(16, triton.next_power_of_2(columns + 1)))


def project(streams: torch.Tensor, fn: torch.Tensor) -> torch.Tensor:
    """What each slice of the channels adds to streams [T, n, D] times fn^T [n*D, C], and to their
    sum of squares: float32 [splits, C + 1, T], the squares last."""
    tokens, (columns, k) = len(streams), fn.shape
    steps, block = triton.cdiv(k, BLOCK_K), block_of_tokens(tokens)
    splits = number_of_splits(tokens, steps)
    partials = fn.new_empty(splits, columns + 1, tokens)
    project_kernel[splits, triton.cdiv(tokens, block)](
        streams,
        fn,
        partials,
        tokens,
        K=k,
        COLUMNS=columns,
        PADDED=padded(columns),
        STEPS=triton.cdiv(steps, splits),
        BLOCK_T=block,
        BLOCK_K=BLOCK_K,
        DOT=tl.bfloat16 if streams.is_cuda else tl.float32,
        num_warps=4,
        num_stages=4,
    )
    return partials


def _variant(name: str, tokens: int, columns: int) -> Variant:
    steps = 4 * 4096 // BLOCK_K
    return Variant(
        name,
        project_kernel,
        {"flat": "*bf16", "fn": "*fp32", "partials": "*fp32", "tokens": "i32"},
        {
            "K": 4 * 4096,
            "COLUMNS": columns,
            "PADDED": padded(columns),
            "STEPS": steps // number_of_splits(tokens, steps),
            "BLOCK_T": block_of_tokens(tokens),
            "BLOCK_K": BLOCK_K,
            "DOT": tl.bfloat16,
        },
        warps=4,
        stages=4,
    )


VARIANTS = (
    _variant("mhc project, 64 tokens", 64, 24),
    _variant("mhc project, 4096 tokens", 4096, 24),
    _variant("mhc head project, 64 tokens", 64, 4),
)
