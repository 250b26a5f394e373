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
PROGRAMS = 512  # four for nearly each of an H100's 132 multiprocessors


@triton.jit
def fn_tile(fn, at, K: tl.constexpr, COLUMNS: tl.constexpr, PADDED: tl.constexpr):
    """[PADDED, D] of fn [COLUMNS, K] at channels `at` [1, D], twice, one below the other."""
    column = tl.arange(0, PADDED)[:, None] % (PADDED // 2)
    return tl.load(
        fn + column * K + at,
        mask=(column < COLUMNS) & (at < K),
        other=0.0,
        eviction_policy="evict_last",
    )


@triton.jit
def accumulate(f, x, acc, DOT: tl.constexpr):
    """acc + f x^T of a tile of `fn_tile` and x [T, D]; the halves of acc are yet to be added.

    Where x is bfloat16, f's upper half becomes f in bfloat16, and the lower what that leaves, in
    bfloat16 again: both together are within 2^-16 of f, and the products are exact. Rounding is
    done on the bits, for conversions run at an eighth of that rate. x stands on the right, where
    it is read from shared memory, so that f's parts stay in registers.
    """
    lower = (tl.arange(0, f.shape[0]) >= f.shape[0] // 2)[:, None]
    if x.dtype == tl.bfloat16:
        high = (f.to(tl.int32, bitcast=True) + 0x8000) & -0x10000
        f = tl.where(lower, f - high.to(tl.float32, bitcast=True), f)
        part = f.to(tl.int32, bitcast=True) + 0x8000
        part = (part >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
        acc = tl.dot(part.to(DOT), tl.trans(x.to(DOT)), acc)
    else:
        acc = tl.dot(tl.where(lower, 0.0, f), tl.trans(x), acc, input_precision="ieee")
    return acc


@triton.jit
def store_partials(
    partials, acc, squares, split, token, tokens, COLUMNS: tl.constexpr, PADDED: tl.constexpr
):
    """The sum of acc's halves [PADDED, T], and as one row more the sums over `squares` [T, D]."""
    column = tl.arange(0, PADDED // 2)[:, None]
    sums = tl.sum(tl.reshape(acc, [2, PADDED // 2, acc.shape[1]]), 0)
    sums = tl.where(column == COLUMNS, tl.sum(squares, 1)[None, :], sums)
    out = partials + (split * (COLUMNS + 1) + column).to(tl.int64) * tokens
    tl.store(out + token[None, :], sums, mask=(column <= COLUMNS) & (token < tokens)[None, :])


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
    # Tokens past the last read the last again, and are not stored.
    rows = flat + tl.minimum(token, tokens - 1).to(tl.int64)[:, None] * K
    acc = tl.zeros([PADDED, BLOCK_T], tl.float32)
    squares = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
    for step in range(split * STEPS, split * STEPS + STEPS):
        at = (step * BLOCK_K + tl.arange(0, BLOCK_K))[None, :]
        x = tl.load(rows + at, mask=at < K, other=0.0)
        acc = accumulate(fn_tile(fn, at, K, COLUMNS, PADDED), x, acc, DOT)
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
    """Rows of a tensor core tile that has room for twice `columns` and one more."""
    return int(max(64, 2 * triton.next_power_of_2(columns + 1)))


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
        num_stages=3,
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
        stages=3,
    )


VARIANTS = (
    _variant("mhc project, 64 tokens", 64, 24),
    _variant("mhc project, 4096 tokens", 4096, 24),
    _variant("mhc head project, 64 tokens", 64, 4),
)
