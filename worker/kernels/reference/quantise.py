"""Simulated quantisation: values are rounded to a narrow format and stay in their own dtype.

Scales are powers of two, the smallest that keep a block's largest magnitude in range.
"""

import math

import torch
from torch.nn.functional import pad

from worker.kernels.entry_pool import E4M3_MAX, SCALE_GROUP

E2M1_MAX = 6.0
ACTIVATION_BLOCK = 128
INDEX_BLOCK = 32
FLOAT32_BIAS = 127
FLOAT32_MANTISSA_BITS = 23
SMALLEST = 1e-4  # floor of a block's magnitude: an all-zero block still has a scale


def quantise_activation(x: torch.Tensor) -> torch.Tensor:
    """x [..., K] through e4m3, one scale per 128 channels."""
    return _by_block(x, ACTIVATION_BLOCK, E4M3_MAX, SMALLEST)


def quantise_entry_(x: torch.Tensor, rope_dims: int) -> None:
    """Cache rows x [..., D] in place, to what `kv_packing` can hold: e4m3 with one scale per 64
    channels, the last `rope_dims` channels in bfloat16."""
    channels, rotated = x[..., :-rope_dims], x[..., -rope_dims:]
    channels.copy_(_by_block(channels, SCALE_GROUP, E4M3_MAX, SMALLEST))
    if x.dtype != torch.bfloat16:
        rotated.copy_(rotated.bfloat16())


def quantise_index(x: torch.Tensor) -> torch.Tensor:
    """Index queries or keys x [..., D], D a power of two: an orthonormal Hadamard transform, then
    e2m1 with one scale per 32 channels."""
    return _by_block(_hadamard(x.float()), INDEX_BLOCK, E2M1_MAX, E2M1_MAX * 2.0**-126).to(x.dtype)


def scaled_blocks(
    x: torch.Tensor, block: int, largest: float, smallest: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., D] in blocks [..., B, block] divided by their scales [..., B, 1], float32; the last
    block is padded with zeros."""
    blocks = torch.unflatten(pad(x.float(), (0, -x.shape[-1] % block)), -1, (-1, block))
    peak = blocks.abs().amax(-1, keepdim=True).clamp(min=smallest)
    scale = _power_of_two_above(peak / largest)
    return blocks / scale, scale


def _by_block(x: torch.Tensor, block: int, largest: float, smallest: float) -> torch.Tensor:
    width = x.shape[-1]
    scaled, scale = scaled_blocks(x, block, largest, smallest)
    rounded = _to_e2m1(scaled) if largest == E2M1_MAX else scaled.to(torch.float8_e4m3fn).float()
    return (rounded * scale).flatten(-2)[..., :width].to(x.dtype)


def _power_of_two_above(x: torch.Tensor) -> torch.Tensor:
    """The smallest power of two >= x, x normal and positive; from the bits, hence exact. NaN if
    x is not finite: conversion to e4m3 would quietly make an infinity finite."""
    mantissa, exponent = torch.frexp(x)  # x = mantissa * 2**exponent, mantissa in [0.5, 1)
    exponent = exponent - (mantissa == 0.5).int()
    power = ((exponent + FLOAT32_BIAS) << FLOAT32_MANTISSA_BITS).view(torch.float32)
    return torch.where(torch.isfinite(x), power, torch.nan)


def _to_e2m1(x: torch.Tensor) -> torch.Tensor:
    """Nearest of 0, .5, 1, 1.5, 2, 3, 4, 6, ties to the even code."""
    size = x.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.round(x / step) * step


def _hadamard(x: torch.Tensor) -> torch.Tensor:
    """Sylvester order, times D**-0.5."""
    width = x.shape[-1]
    half = 1
    while half < width:
        pairs = torch.unflatten(x, -1, (-1, 2, half))
        first, second = pairs.unbind(-2)
        x = torch.stack((first + second, first - second), -2).flatten(-3)
        half *= 2
    return x * math.pow(width, -0.5)
