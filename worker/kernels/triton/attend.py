"""Attention of one token's heads to a share of its listed entries: a program of the grid
(tokens, splits, blocks of heads). An entry is read once; it is key and value.

Channels are cut in pieces whose sizes are powers of two, each within one format of a packed entry.
Softmax is online, in base 2; its maximum starts at the sink, so that it is always finite.
"""

import triton
import triton.language as tl

from worker.kernels.triton.rounding import e4m3_value, narrowed

LEAST_SINK = tl.constexpr(-1e30)  # a sink of -inf is none


@triton.jit
def attend_kernel(
    query,  # [T, HEADS, WIDTH]
    window,  # a pool's data
    window_rows,  # [T, window_count], -1 absent
    window_count,
    entries,  # another pool's data, or None
    entry_rows,  # [T, entry_count]
    entry_count,
    sink,  # [HEADS] float32
    scale,  # of base 2 logits
    out,  # [T, HEADS, WIDTH]; of several splits [T, SPLITS, HEADS, WIDTH] float32, not divided
    peaks,  # [T, SPLITS, HEADS] float32 maxima of base 2 logits, or None
    totals,  # [T, SPLITS, HEADS] float32 sums of weights relative to them, or None
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,  # (first channel, a power of two, end) each
    SPLITS: tl.constexpr,
    WINDOW_PACKING: tl.constexpr,
    ENTRY_PACKING: tl.constexpr,
    DOT: tl.constexpr,  # dtype of products' operands
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    token, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = tl.program_id(2) * BLOCK_H + tl.arange(0, BLOCK_H)
    q, acc = (), ()
    for i in tl.static_range(len(PIECES)):
        channel = PIECES[i][0] + tl.arange(0, PIECES[i][1])
        inside = (head < HEADS)[:, None] & (channel < PIECES[i][2])[None, :]
        at = (token * HEADS + head)[:, None] * WIDTH + channel[None, :]
        q += (tl.load(query + at, mask=inside, other=0.0).to(DOT),)
        acc += (tl.zeros([BLOCK_H, PIECES[i][1]], tl.float32),)
    least = tl.load(sink + head, mask=head < HEADS, other=0.0) * 1.4426950408889634
    peak = tl.maximum(least, LEAST_SINK)
    # The sink's own weight is 1 now; of several splits it is added once, when they are combined.
    total = tl.full([BLOCK_H], 1.0 if SPLITS == 1 else 0.0, tl.float32)

    before = tl.cdiv(window_count, BLOCK_N)
    tiles = before + tl.cdiv(entry_count, BLOCK_N)
    first, stop = split * tiles // SPLITS, (split + 1) * tiles // SPLITS
    acc, peak, total = _attend(
        q,
        acc,
        peak,
        total,
        window,
        window_rows + token * window_count,
        window_count,
        scale,
        tl.minimum(first, before),
        tl.minimum(stop, before),
        WIDTH,
        PIECES,
        WINDOW_PACKING,
        DOT,
        BLOCK_N,
    )
    if entries is not None:
        acc, peak, total = _attend(
            q,
            acc,
            peak,
            total,
            entries,
            entry_rows + token * entry_count,
            entry_count,
            scale,
            tl.maximum(first - before, 0),
            tl.maximum(stop - before, 0),
            WIDTH,
            PIECES,
            ENTRY_PACKING,
            DOT,
            BLOCK_N,
        )

    part = (token * SPLITS + split) * HEADS + head
    if SPLITS > 1:
        tl.store(peaks + part, peak, mask=head < HEADS)
        tl.store(totals + part, total, mask=head < HEADS)
    for i in tl.static_range(len(PIECES)):
        channel = PIECES[i][0] + tl.arange(0, PIECES[i][1])
        inside = (head < HEADS)[:, None] & (channel < PIECES[i][2])[None, :]
        value = acc[i] / total[:, None] if SPLITS == 1 else acc[i]
        at = part[:, None] * WIDTH + channel[None, :]
        tl.store(out + at, narrowed(value, out.dtype.element_ty), mask=inside)


@triton.jit
def _attend(
    q,
    acc,
    peak,
    total,
    pool,
    rows,
    count,
    scale,
    first,
    stop,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,
    PACKING: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """`acc`, `peak` and `total` after tiles `first` to `stop` of one pool's `rows` [count]."""
    for tile in tl.range(first, stop, disable_licm=True):
        item = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        row = tl.load(rows + item, mask=item < count, other=-1)
        kv = _load(pool, row, WIDTH, PIECES, PACKING, DOT)
        logits = tl.zeros([q[0].shape[0], BLOCK_N], tl.float32)
        for i in tl.static_range(len(PIECES)):
            logits = tl.dot(q[i], tl.trans(kv[i]), logits, input_precision="ieee")
        logits = tl.where((row >= 0)[None, :], logits * scale, float("-inf"))
        highest = tl.maximum(peak, tl.max(logits, 1))
        weights = tl.exp2(logits - highest[:, None])
        shrink = tl.exp2(peak - highest)
        total = total * shrink + tl.sum(weights, 1)
        peak = highest
        weights = narrowed(weights, DOT)
        added = ()
        for i in tl.static_range(len(PIECES)):
            kept = acc[i] * shrink[:, None]
            added += (tl.dot(weights, kv[i], kept, input_precision="ieee"),)
        acc = added
    return acc, peak, total


@triton.jit
def _load(
    pool, row, WIDTH: tl.constexpr, PIECES: tl.constexpr, PACKING: tl.constexpr, DOT: tl.constexpr
):
    """Entries of `row` [N], piece by piece, in DOT; absent ones are zero and not read."""
    present = row >= 0
    row = tl.where(present, row, 0)
    kv = ()
    if PACKING is None:
        for i in tl.static_range(len(PIECES)):
            channel = PIECES[i][0] + tl.arange(0, PIECES[i][1])
            inside = present[:, None] & (channel < PIECES[i][2])[None, :]
            at = row[:, None] * WIDTH + channel[None, :]
            kv += (tl.load(pool + at, mask=inside, other=0.0).to(DOT),)
    else:
        block = pool + row // PACKING.entries * PACKING.block_bytes
        at = row % PACKING.entries
        scales = block + PACKING.entries * PACKING.row_bytes + at * PACKING.scales_bytes
        exponents = tl.load(scales.to(tl.pointer_type(tl.int64)), mask=present, other=0)
        entry = block + at * PACKING.row_bytes
        for i in tl.static_range(len(PIECES)):
            channel = PIECES[i][0] + tl.arange(0, PIECES[i][1])
            if PIECES[i][0] < PACKING.fp8_channels:
                inside = present[:, None] & (channel < PIECES[i][2])[None, :]
                code = tl.load(entry[:, None] + channel[None, :], mask=inside, other=0)
                kv += (_dequantised(code, exponents, PIECES[i][0], PACKING.group, DOT),)
            else:
                inside = present[:, None] & (channel < PIECES[i][2])[None, :]
                plain = (entry + PACKING.fp8_channels).to(tl.pointer_type(tl.bfloat16))
                at16 = channel - PACKING.fp8_channels
                kv += (tl.load(plain[:, None] + at16[None, :], mask=inside, other=0.0).to(DOT),)
    return kv


@triton.jit
def _dequantised(code, exponents, FIRST: tl.constexpr, GROUP: tl.constexpr, DOT: tl.constexpr):
    """Bytes [N, C] of channels from FIRST on, with each entry's scales one to a byte of
    `exponents` [N]: exact in bfloat16 and wider."""
    entries: tl.constexpr = code.shape[0]
    groups: tl.constexpr = triton.cdiv(code.shape[1], GROUP)
    size: tl.constexpr = code.shape[1] // groups
    at = 8 * (FIRST // GROUP + tl.arange(0, groups))
    exponent = ((exponents[:, None] >> at[None, :]) & 255).to(tl.int32)
    bits = tl.where(exponent == 0, 0x400000, exponent << 23)  # byte 0 is 2^-127, subnormal
    scale = tl.where(exponent == 255, 0x7FC00000, bits).to(tl.float32, bitcast=True)
    if tl.bfloat16 == DOT:
        scale = scale.to(tl.bfloat16)
    scale = tl.broadcast_to(scale[:, :, None], [entries, groups, size])
    scale = tl.reshape(scale, [entries, groups * size])
    if tl.bfloat16 == DOT:
        # The bits of e4m3 at the place of bfloat16's are the number times 2^-120, even where
        # it is subnormal. The code of NaN is not looked for: its scale is NaN as well.
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 low, high, sign, up;
            mov.b32 up, 0x7B807B80;
            prmt.b32 low, $2, 0, 0x1404;
            prmt.b32 high, $2, 0, 0x3424;
            and.b32 sign, low, 0x80008000;
            shr.u32 low, low, 4;
            lop3.b32 low, low, 0x07F007F0, sign, 0xEA;
            and.b32 sign, high, 0x80008000;
            shr.u32 high, high, 4;
            lop3.b32 high, high, 0x07F007F0, sign, 0xEA;
            mul.rn.bf16x2 low, low, up;
            mul.rn.bf16x2 high, high, up;
            mul.rn.bf16x2 $0, low, $3;
            mul.rn.bf16x2 $1, high, $4;
            }""",
            "=r,=r,r,r,r",
            [code, scale],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=4,
        )
    else:
        return e4m3_value(code) * scale
