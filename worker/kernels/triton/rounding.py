"""Exact rounding to narrow formats, by the bits of float32: the same on a GPU, under the
interpreter and in the reference. Kernels that round activations or write the cache call it."""

import triton
import triton.language as tl

# Its conversion to bfloat16 cuts where a GPU rounds to the nearest, and loses subnormal numbers.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
INFINITY = tl.constexpr(0x7F800000)
NAN = tl.constexpr(0x7FC00000)
MANTISSA = tl.constexpr(0x7FFFFF)


@triton.jit
def narrowed(x, dtype: tl.constexpr):
    """float32 in `dtype`, to the nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        rounded = tl.where(x == x, bits + 0x7FFF + ((bits >> 16) & 1), NAN)
        return (rounded >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(dtype)


@triton.jit
def magnitude_bits(x):
    """The bits of |x|, whose order as integers is that of the numbers, with NaN above all."""
    return x.to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def scale_exponent(peak, LARGEST: tl.constexpr, SMALLEST: tl.constexpr):
    """From a block's largest magnitude, as bits: the biased exponent of the smallest power of two
    that brings it to `LARGEST` (448 or 6) at most; 255 if it is not finite."""
    tl.static_assert(LARGEST == 448 or LARGEST == 6)
    floor = tl.full(peak.shape, SMALLEST, tl.float32).to(tl.int32, bitcast=True)
    peak = tl.maximum(peak, floor)
    # 448 = 1.75 * 2^8 and 6 = 1.5 * 2^2: a mantissa above theirs needs the next power.
    below: tl.constexpr = 8 if LARGEST == 448 else 2
    mantissa: tl.constexpr = 0x600000 if LARGEST == 448 else 0x400000
    exponent = (peak >> 23) - below + ((peak & MANTISSA) > mantissa).to(tl.int32)
    return tl.where(peak >= INFINITY, 255, exponent)


@triton.jit
def power_of_two(exponent):
    """float32 of a biased exponent; NaN at 255."""
    return tl.where(exponent == 255, NAN, exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def reciprocal(exponent):
    """1 / power_of_two(exponent), exact."""
    return tl.where(exponent == 255, NAN, (254 - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def rounded_e4m3(x):
    """The nearest e4m3 of |x| <= 448, as float32; ties to even, zero and NaN keep their sign."""
    bits = x.to(tl.int32, bitcast=True)
    size = (bits & 0x7FFFFFFF).to(tl.float32, bitcast=True)
    normal = (bits & 0x7FFFFFFF) + 0x7FFFF + ((bits >> 20) & 1)
    normal = (normal & -0x100000).to(tl.float32, bitcast=True)
    subnormal = (size + 16384.0) - 16384.0  # in steps of 2^-9: 16384 + size has no finer ones
    rounded = tl.where(size < 0.015625, subnormal, normal)
    return _signed(tl.where(size == size, rounded, size), bits)


@triton.jit
def e4m3_code(rounded):
    """The byte of what `rounded_e4m3` returned."""
    bits = rounded.to(tl.int32, bitcast=True)
    size = (bits & 0x7FFFFFFF).to(tl.float32, bitcast=True)
    normal = ((bits >> 20) & 0x7FF) - (120 << 3)
    code = tl.where(size < 0.015625, (size * 512.0).to(tl.int32), normal)
    code = tl.where(size == size, code, 0x7F)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def e4m3_value(code):
    """float32 of a byte; 127 and 255 are NaN, which the interpreter's conversion does not know."""
    value = code.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    return tl.where((code & 0x7F) == 0x7F, float("nan"), value)


@triton.jit
def rounded_e2m1(x):
    """The nearest of 0, .5, 1, 1.5, 2, 3, 4, 6 to |x| <= 6, as float32; ties to the even code."""
    bits = x.to(tl.int32, bitcast=True)
    size = (bits & 0x7FFFFFFF).to(tl.float32, bitcast=True)
    steps = tl.where(size < 2, 2.0, tl.where(size < 4, 1.0, 0.5))  # in one
    step = tl.where(size < 2, 0.5, tl.where(size < 4, 1.0, 2.0))
    # 1.5 * 2^23 and a small number have no fraction between them.
    return _signed(((size * steps + 12582912.0) - 12582912.0) * step, bits)


@triton.jit
def _signed(size, bits):
    """`size` >= 0 with the sign of float32 `bits`."""
    sign = bits & -0x80000000
    return (size.to(tl.int32, bitcast=True) | sign).to(tl.float32, bitcast=True)


@triton.jit
def group_peaks(x, GROUP: tl.constexpr):
    """The largest magnitude, as bits, in each GROUP channels of x [N]: [N / GROUP, 1]."""
    groups: tl.constexpr = x.shape[0] // GROUP
    return tl.max(tl.reshape(magnitude_bits(x), [groups, GROUP]), 1, keep_dims=True)


@triton.jit
def spread(by_group, N: tl.constexpr):
    """A value per group [G, 1] to its channels [N]."""
    groups: tl.constexpr = by_group.shape[0]
    return tl.reshape(tl.broadcast_to(by_group, [groups, N // groups]), [N])
