"""How kernels write a cache entry, and round it to what a packed pool can hold.

`Packing` objects are compile-time constants of the kernels: a geometry is a kernel of its own.
"""

import triton
import triton.language as tl

from worker.kernels.triton.rounding import (
    e4m3_code,
    group_peaks,
    narrowed,
    power_of_two,
    reciprocal,
    rounded_e4m3,
    scale_exponent,
    spread,
)


@triton.jit
def rounded_entry(x, channel, FP8: tl.constexpr, GROUP: tl.constexpr, SMALLEST: tl.constexpr):
    """x [N] float32 as an entry keeps it: the first `FP8` channels through e4m3 with a scale per
    GROUP, the others through bfloat16. Channels beyond the entry are zero."""
    exponent = scale_exponent(group_peaks(tl.where(channel < FP8, x, 0.0), GROUP), 448, SMALLEST)
    scaled = x * spread(reciprocal(exponent), x.shape[0])
    rounded = rounded_e4m3(tl.where(channel < FP8, scaled, 0.0))
    rounded *= spread(power_of_two(exponent), x.shape[0])
    return tl.where(channel < FP8, rounded, narrowed(x, tl.bfloat16).to(tl.float32))


@triton.jit
def write_entry(
    x, channel, pool, row, WIDTH: tl.constexpr, PACKING: tl.constexpr, GROUP: tl.constexpr
):
    """Write x [N] float32, zero from WIDTH on, to a row of a pool: as numbers, or packed by
    `PACKING` with its group rounded up to a power of two in `GROUP`."""
    if PACKING is None:
        x = narrowed(x, pool.dtype.element_ty)
        tl.store(pool + row * WIDTH + channel, x, mask=channel < WIDTH)
    else:
        groups: tl.constexpr = x.shape[0] // GROUP
        block = pool + row // PACKING.entries * PACKING.block_bytes
        at = row % PACKING.entries
        fp8 = channel < PACKING.fp8_channels
        x8 = tl.where(fp8, x, 0.0)
        exponent = scale_exponent(group_peaks(x8, GROUP), 448, PACKING.smallest)
        code = e4m3_code(rounded_e4m3(x8 * spread(reciprocal(exponent), x.shape[0])))
        entry = block + at * PACKING.row_bytes
        tl.store(entry + channel, code, mask=fp8)
        if PACKING.bf16_channels:
            plain = (entry + PACKING.fp8_channels).to(tl.pointer_type(tl.bfloat16))
            x16 = narrowed(x, tl.bfloat16)
            at16 = channel - PACKING.fp8_channels
            tl.store(plain + at16, x16, mask=(at16 >= 0) & (channel < WIDTH))
        scales = block + PACKING.entries * PACKING.row_bytes + at * PACKING.scales_bytes
        group = tl.arange(0, groups)
        exists = group * PACKING.group < PACKING.fp8_channels
        if PACKING.scale_dtype.itemsize == 1:
            tl.store(scales + group, tl.reshape(exponent, [groups]).to(tl.uint8), mask=exists)
        else:
            scale = tl.reshape(power_of_two(exponent), [groups])
            tl.store(scales.to(tl.pointer_type(tl.float32)) + group, scale, mask=exists)


@triton.jit
def normed(x, eps, WIDTH: tl.constexpr):
    """x [N], zero from WIDTH on, over the root mean square of its WIDTH channels."""
    return x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)


@triton.jit
def turned(x, channel, angles, WIDTH: tl.constexpr, PAIRS: tl.constexpr):
    """x [N] with the last 2 * PAIRS of its WIDTH channels turned, pair by pair, by complex numbers
    at `angles`."""
    pairs: tl.constexpr = x.shape[0] // 2
    pair = tl.arange(0, pairs) - (WIDTH // 2 - PAIRS)
    rotary = (pair >= 0) & (pair < PAIRS)
    cos = tl.load(angles + 2 * pair, mask=rotary, other=1.0)
    sin = tl.load(angles + 2 * pair + 1, mask=rotary, other=0.0)
    real, imaginary = tl.split(tl.reshape(x, [pairs, 2]))
    both = tl.join(real * cos - imaginary * sin, real * sin + imaginary * cos)
    return tl.where(channel < WIDTH - 2 * PAIRS, x, tl.reshape(both, [x.shape[0]]))
