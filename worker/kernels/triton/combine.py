"""What the splits of a token's entries found, put together: a head of a token is a program."""

import triton
import triton.language as tl

from worker.kernels.triton.attend import sink_logit
from worker.kernels.triton.rounding import narrowed


@triton.jit(do_not_specialize=["splits"])
def combine_kernel(
    parts,  # [T, splits, HEADS, WIDTH] float32, weighted sums
    peaks,  # [T, splits, HEADS] maxima of base 2 logits, the sink's among them
    totals,  # [T, splits, HEADS] sums of weights relative to them, without the sink
    sink,  # [HEADS] float32
    splits,
    out,  # [T, HEADS, WIDTH]
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, BLOCK_D)
    part = token * splits * HEADS + head
    highest = tl.load(peaks + part)
    for split in range(1, splits):
        highest = tl.maximum(highest, tl.load(peaks + part + split * HEADS))
    total = tl.exp2(sink_logit(tl.load(sink + head)) - highest)
    acc = tl.zeros([BLOCK_D], tl.float32)
    for split in range(splits):  # always in this order
        at = part + split * HEADS
        weight = tl.exp2(tl.load(peaks + at) - highest)
        total += weight * tl.load(totals + at)
        acc += weight * tl.load(parts + at * WIDTH + channel, mask=channel < WIDTH, other=0.0)
    acc /= total
    at = (token * HEADS + head) * WIDTH + channel
    tl.store(out + at, narrowed(acc, out.dtype.element_ty), mask=channel < WIDTH)
