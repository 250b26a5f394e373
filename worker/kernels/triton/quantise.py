"""Simulated quantisation: values are rounded to a narrow format and stay in their own dtype.

Bit for bit the reference's: everything but the Hadamard transform's sums is exact, and those are
taken in the same order.
"""

import math

import torch
import triton
import triton.language as tl

from worker.kernels.reference.quantise import (
    ACTIVATION_BLOCK,
    E2M1_MAX,
    INDEX_BLOCK,
    SMALLEST,
)
from worker.kernels.triton.entry_format import rounded_entry
from worker.kernels.triton.rounding import (
    group_peaks,
    narrowed,
    power_of_two,
    reciprocal,
    rounded_e2m1,
    scale_exponent,
    spread,
)
from worker.kernels.triton.variant import Variant

ACTIVATION_ELEMENTS = 2048  # of one program
INDEX_ELEMENTS = 1024
INDEX_SMALLEST = E2M1_MAX * 2.0**-126


@triton.jit
def activation_kernel(
    x,  # [N, WIDTH]
    out,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    SMALLEST: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = channel < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + channel
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = rounded_entry(value, channel, WIDTH, GROUP, SMALLEST)
    tl.store(out + at, narrowed(value, out.dtype.element_ty), mask=inside)


@triton.jit
def index_kernel(
    x,  # [N, WIDTH]
    out,
    rows,  # N
    factor,  # WIDTH ** -0.5
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < rows.to(tl.int64) * WIDTH
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = rounded_index(value, factor, WIDTH, GROUP, SMALLEST)
    tl.store(out + at, narrowed(value, out.dtype.element_ty), mask=inside)


@triton.jit
def rounded_index(x, factor, WIDTH: tl.constexpr, GROUP: tl.constexpr, SMALLEST: tl.constexpr):
    """Rows of WIDTH channels, one after the other in x [N] float32: an orthonormal Hadamard
    transform of each, then e2m1 with a scale per GROUP."""
    for stage in tl.static_range(WIDTH.bit_length() - 1):
        x = _butterflies(x, 2**stage)
    x *= factor
    exponent = scale_exponent(group_peaks(x, GROUP), 6, SMALLEST)
    rounded = rounded_e2m1(x * spread(reciprocal(exponent), x.shape[0]))
    return rounded * spread(power_of_two(exponent), x.shape[0])


@triton.jit
def _butterflies(x, HALF: tl.constexpr):
    """Sums and differences of channels HALF apart."""
    pairs = tl.reshape(x, [x.shape[0] // (2 * HALF), 2, HALF])
    first, second = tl.split(tl.permute(pairs, [0, 2, 1]))
    pairs = tl.permute(tl.join(first + second, first - second), [0, 2, 1])
    return tl.reshape(pairs, [x.shape[0]])


def quantise_activation(x: torch.Tensor) -> torch.Tensor:
    """x [..., K] through e4m3, one scale per 128 channels."""
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        width = x.shape[-1]
        block = _activation_block(width)
        activation_kernel[x.numel() // width, triton.cdiv(width, block)](
            x,
            out,
            WIDTH=width,
            GROUP=ACTIVATION_BLOCK,
            SMALLEST=SMALLEST,
            BLOCK_D=block,
            num_warps=4,
        )
    return out


def quantise_index(x: torch.Tensor) -> torch.Tensor:
    """Index queries or keys x [..., D], D a power of two: an orthonormal Hadamard transform, then
    e2m1 with one scale per 32 channels."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    assert width == triton.next_power_of_2(width)
    if x.numel():
        block = max(INDEX_ELEMENTS, width)
        index_kernel[triton.cdiv(x.numel(), block),](
            x,
            out,
            x.numel() // width,
            math.pow(width, -0.5),
            WIDTH=width,
            GROUP=min(INDEX_BLOCK, width),
            SMALLEST=INDEX_SMALLEST,
            BLOCK=block,
            num_warps=4,
        )
    return out


def _activation_block(width: int) -> int:
    """Channels of one program: whole groups."""
    return int(min(ACTIVATION_ELEMENTS, max(ACTIVATION_BLOCK, triton.next_power_of_2(width))))


def _activation_variant(width: int) -> Variant:
    return Variant(
        f"quantise activation, {width}",
        activation_kernel,
        {"x": "*bf16", "out": "*bf16"},
        {
            "WIDTH": width,
            "GROUP": ACTIVATION_BLOCK,
            "SMALLEST": SMALLEST,
            "BLOCK_D": _activation_block(width),
        },
    )


VARIANTS = (
    _activation_variant(4096),
    _activation_variant(1024),
    Variant(
        "quantise index queries",
        index_kernel,
        {"x": "*bf16", "out": "*bf16", "rows": "i32", "factor": "fp32"},
        {"WIDTH": 128, "GROUP": 32, "SMALLEST": INDEX_SMALLEST, "BLOCK": INDEX_ELEMENTS},
    ),
)
