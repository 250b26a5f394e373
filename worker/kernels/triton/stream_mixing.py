"""What hyper-connections do with the products: weights of the streams, their sum, the next streams.

`hyper_connection` calls it after `stream_projection`.
"""

import torch
import triton
import triton.language as tl

from worker.kernels.triton.variant import Variant

SINKHORN_TOKENS = 128  # one for each thread of four warps: a token's matrix stays in registers
OUT_BLOCK = 2048


@triton.jit
def slices_sum(partials, offsets, stride, mask, SPLITS: tl.constexpr):
    """The slices added up in their order, at `offsets`; `stride` elements lie between two."""
    total = tl.load(partials + offsets, mask=mask, other=0.0)
    for _ in tl.static_range(1, SPLITS):
        partials += stride
        total += tl.load(partials + offsets, mask=mask, other=0.0)
    return total


@triton.jit
def sigmoid(x):
    tail = tl.exp(-tl.abs(x))  # at most one: a large negative x cannot overflow
    return tl.where(x < 0.0, tail, 1.0) / (1.0 + tail)


@triton.jit
def columns_divided(m, eps, N: tl.constexpr):
    """The N*N entries of a matrix, row by row, over their columns' sums plus eps."""
    inverse: tl.tuple = ()
    for c in tl.static_range(N):
        total = m[c] + eps
        for r in tl.static_range(1, N):
            total += m[r * N + c]
        inverse += (1.0 / total,)
    out: tl.tuple = ()
    for i in tl.static_range(N * N):
        out += (m[i] * inverse[i % N],)
    return out


@triton.jit
def rows_divided(m, eps, N: tl.constexpr):
    """As `columns_divided`, over rows."""
    out: tl.tuple = ()
    for r in tl.static_range(N):
        total = m[r * N] + eps
        for c in tl.static_range(1, N):
            total += m[r * N + c]
        inverse = 1.0 / total
        for c in tl.static_range(N):
            out += (m[r * N + c] * inverse,)
    return out


@triton.jit
def rows_softmax(z, eps, N: tl.constexpr):
    """The softmax of each row, plus eps."""
    m: tl.tuple = ()
    for r in tl.static_range(N):
        most = z[r * N]
        for c in tl.static_range(1, N):
            most = tl.maximum(most, z[r * N + c])
        for c in tl.static_range(N):
            m += (tl.exp(z[r * N + c] - most),)
    m = rows_divided(m, 0.0, N)
    out: tl.tuple = ()
    for i in tl.static_range(N * N):
        out += (m[i] + eps,)
    return out


@triton.jit
def sinkhorn(
    partials, base, scale, post, comb, tokens, eps, norm_eps, first,
    N: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr, ITERATIONS: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    """post [T, N] and comb [T, N, N] of the tokens from `first` on: one thread has a token's whole
    matrix in registers, a tensor [BLOCK_T] for each entry."""
    stride = tl.cast(tokens, tl.int64) * (N * (N + 2) + 1)
    token = (first + tl.arange(0, BLOCK_T)).to(tl.int64)
    here = token < tokens
    squares = slices_sum(partials, N * (N + 2) * tokens + token, stride, here, SPLITS)
    inverse = tl.rsqrt(squares / (N * WIDTH) + norm_eps)

    for j in tl.static_range(N, 2 * N):
        z = slices_sum(partials, j * tokens + token, stride, here, SPLITS)
        z = z * inverse * tl.load(scale + 1) + tl.load(base + j)
        tl.store(post + token * N + j - N, 2.0 * sigmoid(z), mask=here)

    m: tl.tuple = ()
    for i in tl.static_range(2 * N, 2 * N + N * N):
        z = slices_sum(partials, i * tokens + token, stride, here, SPLITS)
        m += (z * inverse * tl.load(scale + 2) + tl.load(base + i),)
    m = rows_softmax(m, eps, N)
    m = columns_divided(m, eps, N)
    for _ in range(ITERATIONS - 1):
        m = columns_divided(rows_divided(m, eps, N), eps, N)
    for i in tl.static_range(N * N):
        tl.store(comb + token * (N * N) + i, m[i], mask=here)


@triton.jit
def collapse(
    streams, partials, base, scale, out, tokens, eps, norm_eps, token,
    N: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out [T, WIDTH] of one token: its streams, each times its weight, added up."""
    j = tl.arange(0, N)
    channel = tl.arange(0, BLOCK_D)
    inside = channel < WIDTH
    token = token.to(tl.int64)
    rows = streams + (token * N + j[:, None]) * WIDTH
    x = tl.load(rows + channel[None, :], mask=inside[None, :], other=0.0)
    split = tl.arange(0, SPLITS).to(tl.int64)
    slices = partials + split * (COLUMNS + 1) * tokens + token
    inverse = tl.rsqrt(tl.sum(tl.load(slices + COLUMNS * tokens)) / (N * WIDTH) + norm_eps)
    z = tl.sum(tl.load(slices[:, None] + j[None, :] * tokens), 0)
    pre = sigmoid(z * inverse * tl.load(scale) + tl.load(base + j)) + eps
    mixed = tl.sum(x.to(tl.float32) * pre[:, None], 0)
    tl.store(out + token * WIDTH + channel, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def mix_kernel(
    streams,  # [T, N, WIDTH]
    partials,  # [SPLITS, COLUMNS + 1, T]
    base,
    scale,
    out,  # [T, WIDTH]
    post,  # [T, N], or nothing where COLUMNS is N
    comb,  # [T, N, N], alike
    tokens,
    eps,
    norm_eps,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
    ITERATIONS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The first programs take a block of tokens' matrices each, the others one token's streams,
    the last token first: its streams were read last and may still be in the L2 cache."""
    pid = tl.program_id(0)
    matrices = 0
    if COLUMNS > N:
        matrices = tl.cdiv(tokens, BLOCK_T)
        if pid < matrices:
            sinkhorn(
                partials, base, scale, post, comb, tokens, eps, norm_eps, pid * BLOCK_T,
                N, WIDTH, SPLITS, ITERATIONS, BLOCK_T,
            )  # fmt: skip
    if pid >= matrices:
        collapse(
            streams, partials, base, scale, out, tokens, eps, norm_eps,
            tokens - 1 - (pid - matrices), N, WIDTH, COLUMNS, SPLITS, BLOCK_D,
        )  # fmt: skip


@triton.jit
def out_kernel(
    y,  # [T, WIDTH]
    streams,  # [T, N, WIDTH]
    post,  # [T, N]
    comb,  # [T, N, N]
    out,  # [T, N, WIDTH]
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = channel < WIDTH
    added = tl.load(y + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
    rows = token * N * WIDTH + channel
    old: tl.tuple = ()
    for j in tl.static_range(N):
        x = tl.load(streams + rows + j * WIDTH, mask=inside, other=0.0)
        old += (x.to(tl.float32),)
    for k in tl.static_range(N):
        new = tl.load(post + token * N + k) * added
        for j in tl.static_range(N):
            new += tl.load(comb + token * N * N + j * N + k) * old[j]
        tl.store(out + rows + k * WIDTH, new.to(out.dtype.element_ty), mask=inside)


def mix(
    streams: torch.Tensor,
    partials: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    *,
    iterations: int,
    eps: float,
    norm_eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The streams' sum [T, D] by the weights that `partials` of `project` give, post and comb;
    with only n products per token the latter two are left unwritten."""
    tokens, n, width = streams.shape
    splits, columns = partials.shape[0], partials.shape[1] - 1
    out = streams.new_empty(tokens, width)
    post = torch.empty(tokens, n, dtype=torch.float32, device=streams.device)
    comb = torch.empty(tokens, n, n, dtype=torch.float32, device=streams.device)
    matrices = triton.cdiv(tokens, SINKHORN_TOKENS) if columns > n else 0
    mix_kernel[matrices + tokens,](
        streams,
        partials,
        base,
        scale,
        out,
        post,
        comb,
        tokens,
        eps,
        norm_eps,
        N=n,
        WIDTH=width,
        COLUMNS=columns,
        SPLITS=splits,
        ITERATIONS=iterations,
        BLOCK_T=SINKHORN_TOKENS,
        BLOCK_D=triton.next_power_of_2(width),
        num_warps=4,
    )
    return out, post, comb


def spread(
    y: torch.Tensor, streams: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    """The next streams [T, n, D], as `hyper_connection_out` of the reference gives them."""
    tokens, n, width = streams.shape
    out = torch.empty_like(streams)
    block = min(OUT_BLOCK, triton.next_power_of_2(width))
    out_kernel[tokens, triton.cdiv(width, block)](
        y, streams, post, comb, out, N=n, WIDTH=width, BLOCK_D=block, num_warps=4
    )
    return out


def _mix_variant(name: str, columns: int, splits: int) -> Variant:
    pointers = {"streams": "*bf16", "partials": "*fp32", "base": "*fp32", "scale": "*fp32"}
    pointers |= {"out": "*bf16", "post": "*fp32", "comb": "*fp32"}
    return Variant(
        name,
        mix_kernel,
        pointers | {"tokens": "i32", "eps": "fp32", "norm_eps": "fp32"},
        {
            "N": 4,
            "WIDTH": 4096,
            "COLUMNS": columns,
            "SPLITS": splits,
            "ITERATIONS": 20,
            "BLOCK_T": SINKHORN_TOKENS,
            "BLOCK_D": 4096,
        },
    )


VARIANTS = (
    _mix_variant("mhc mix, 64 tokens", 24, 16),
    _mix_variant("mhc mix, 4096 tokens", 24, 8),
    _mix_variant("mhc head mix, 64 tokens", 4, 16),
    Variant(
        "mhc out",
        out_kernel,
        {"y": "*bf16", "streams": "*bf16", "post": "*fp32", "comb": "*fp32", "out": "*bf16"},
        {"N": 4, "WIDTH": 4096, "BLOCK_D": OUT_BLOCK},
    ),
)
