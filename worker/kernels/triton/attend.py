"""Attention of one token's heads to a share of its listed entries: a program of the grid
(tokens, splits, blocks of heads). `attention.py` launches it.

An entry is read and dequantised once, into a tile that is keys and values. Softmax is online, in
base 2; its maximum starts at the sink, so that it is always finite and an empty share is nothing.
"""

import triton
import triton.language as tl

from worker.kernels.triton.rounding import e4m3_value, narrowed

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["window_count", "entry_count", "splits"])
def attend_kernel(
    query,  # [T, HEADS, WIDTH]
    window,  # a pool's data
    window_rows,  # [T, window_count], -1 absent
    window_count,
    entries,  # another pool's data, or None
    entry_rows,  # [T, entry_count]
    entry_count,
    sink,  # [HEADS] float32
    scale,  # of logits in base 2
    splits,
    out,  # [T, HEADS, WIDTH]; of several splits [T, splits, HEADS, WIDTH] float32, not divided
    peaks,  # [T, splits, HEADS] float32 maxima of logits in base 2; None if there is one split
    totals,  # [T, splits, HEADS] float32 sums of weights relative to them, or None
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,  # (first channel, end) of each piece of an entry
    PIECE: tl.constexpr,  # channels that a piece has room for
    WINDOW_PACKING: tl.constexpr,
    ENTRY_PACKING: tl.constexpr,
    DOT: tl.constexpr,  # dtype of products' operands
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    token, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    block = tl.program_id(2) * BLOCK_H
    at = tl.arange(0, BLOCK_H)
    head = block + at
    channel = _channels(PIECES, PIECE)
    inside = (head < HEADS)[:, None] & (channel >= 0)[None, :]
    # Small constants apart, so that they are no registers' but instructions'.
    within = at[:, None] * WIDTH + channel[None, :]
    q = tl.load(query + (token * HEADS + block) * WIDTH + within, mask=inside, other=0.0).to(DOT)
    acc = tl.zeros(q.shape, tl.float32)
    peak = sink_logit(tl.load(sink + head, mask=head < HEADS, other=0.0))
    # The sink's own weight is 1 now; of several splits it is added once, when they are combined.
    total = tl.full([BLOCK_H], 1.0 if peaks is None else 0.0, tl.float32)

    before = tl.cdiv(window_count, BLOCK_N)
    tiles = before + tl.cdiv(entry_count, BLOCK_N)
    first, stop = split * tiles // splits, (split + 1) * tiles // splits
    rows = window_rows + token * window_count
    begin, end = tl.minimum(first, before), tl.minimum(stop, before)
    acc, peak, total = _attend(
        q, acc, peak, total, window, rows, window_count, scale, begin, end,
        WIDTH, PIECES, PIECE, WINDOW_PACKING, DOT, BLOCK_N,
    )  # fmt: skip
    if entries is not None:
        rows = entry_rows + token * entry_count
        begin, end = tl.maximum(first - before, 0), tl.maximum(stop - before, 0)
        acc, peak, total = _attend(
            q, acc, peak, total, entries, rows, entry_count, scale, begin, end,
            WIDTH, PIECES, PIECE, ENTRY_PACKING, DOT, BLOCK_N,
        )  # fmt: skip

    part = (token * splits + split) * HEADS + block
    if peaks is None:
        acc /= total[:, None]
    else:
        tl.store(peaks + part + at, peak, mask=head < HEADS)
        tl.store(totals + part + at, total, mask=head < HEADS)
    acc = narrowed(acc, out.dtype.element_ty)
    tl.store(out + part * WIDTH + within, acc, mask=inside)


@triton.jit
def sink_logit(sink):
    """The sink in base 2; -inf, a sink that takes nothing, as a number below all logits."""
    return tl.maximum(sink * LOG2_E, -1e30)


@triton.jit
def _attend(
    q,  # [BLOCK_H, D]
    acc,  # [BLOCK_H, D]
    peak,  # [BLOCK_H]
    total,  # [BLOCK_H]
    pool,
    rows,  # [count]
    count,
    scale,
    begin,
    end,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,
    PIECE: tl.constexpr,
    PACKING: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """`acc`, `peak` and `total` after tiles `begin` to `end` of one pool's rows."""
    # A tile's rows are read, then its entries, then they are used: five stages hold two tiles of
    # packed entries. Two of plain ones would not fit. Invariants outside the loop would be spilled.
    stages: tl.constexpr = 2 if PACKING is None else 5
    for tile in tl.range(begin, end, num_stages=stages, disable_licm=True):
        item = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        row = tl.load(rows + item, mask=item < count, other=-1)
        if PACKING is None:
            kv = _plain(pool, row, WIDTH, PIECES, PIECE, DOT)
        else:
            kv = _unpacked(pool, row, PIECES, PIECE, PACKING, DOT)
        logits = tl.zeros([q.shape[0], BLOCK_N], tl.float32)
        # Always. A product that the compiler sees end in another is computed whole by every
        # warpgroup; behind a branch it does not, and each computes its half of the entries.
        if tile < end:
            logits = tl.dot(q, tl.trans(kv), logits, input_precision="ieee")
        logits = tl.where((row >= 0)[None, :], logits * scale, float("-inf"))
        highest = tl.maximum(peak, tl.max(logits, 1))
        weights = tl.exp2(logits - highest[:, None])
        shrink = tl.exp2(peak - highest)
        total = total * shrink + tl.sum(weights, 1)
        peak = highest
        acc *= shrink[:, None]
        acc = tl.dot(_operand(weights, DOT), kv, acc, input_precision="ieee")
    return acc, peak, total


@triton.jit
def _channels(PIECES: tl.constexpr, PIECE: tl.constexpr):
    """The channel at each place of pieces side by side; -1 where there is none."""
    count: tl.constexpr = len(PIECES)
    place = tl.arange(0, PIECE * count)
    if PIECES[count - 1][1] == PIECE * count:  # no piece has room to spare
        return place
    else:
        channel = tl.full([PIECE * count], -1, tl.int32)
        for i in tl.static_range(count):
            at = place - i * PIECE + PIECES[i][0]
            channel = tl.where((place // PIECE == i) & (at < PIECES[i][1]), at, channel)
        return channel


@triton.jit
def _plain(
    pool,
    row,
    WIDTH: tl.constexpr,
    PIECES: tl.constexpr,
    PIECE: tl.constexpr,
    DOT: tl.constexpr,
):
    """Entries [N, D] of a pool of numbers; absent ones, -1 in `row` [N], are zero and not read."""
    channel = _channels(PIECES, PIECE)
    inside = (row >= 0)[:, None] & (channel >= 0)[None, :]
    at = row.to(tl.int64)[:, None] * WIDTH + channel[None, :]
    return tl.load(pool + at, mask=inside, other=0.0).to(DOT)


@triton.jit
def _unpacked(
    pool,
    row,
    PIECES: tl.constexpr,
    PIECE: tl.constexpr,
    PACKING: tl.constexpr,
    DOT: tl.constexpr,
):
    """Entries [N, D] of a packed pool; absent ones, -1 in `row` [N], are zero and not read."""
    present = row >= 0
    row = tl.where(present, row, 0).to(tl.int64)
    block = pool + row // PACKING.entries * PACKING.block_bytes
    at = row % PACKING.entries
    entry = block + at * PACKING.row_bytes
    plain = (entry + PACKING.fp8_channels).to(tl.pointer_type(tl.bfloat16))
    scales = block + PACKING.entries * PACKING.row_bytes + at * PACKING.scales_bytes
    exponents = tl.load(scales.to(tl.pointer_type(tl.int64)), mask=present, other=0)
    tl.static_assert(PACKING.group == PIECE and PACKING.scales_bytes == 8)
    pieces = tl.tuple(())
    for i in tl.static_range(len(PIECES)):
        channel = PIECES[i][0] + tl.arange(0, PIECE)
        inside = present[:, None] & (channel < PIECES[i][1])[None, :]
        if PIECES[i][0] < PACKING.fp8_channels:
            code = tl.load(entry[:, None] + channel[None, :], mask=inside, other=0)
            exponent = (exponents >> (PIECES[i][0] // PIECE * 8)) & 255
            pieces += (_dequantised(code, exponent.to(tl.int32), DOT),)
        else:
            at16 = channel - PACKING.fp8_channels
            x = tl.load(plain[:, None] + at16[None, :], mask=inside, other=0.0)
            pieces += (x.to(DOT),)
    return _side_by_side(pieces)


@triton.jit
def _side_by_side(pieces):
    """One tile of up to 16 tiles, in order: without a move of data between threads."""
    for _ in tl.static_range(4):
        if len(pieces) > 1:
            pairs = tl.tuple(())
            for i in tl.static_range(len(pieces) // 2):
                both = tl.permute(tl.join(pieces[2 * i], pieces[2 * i + 1]), (0, 2, 1))
                pairs += (tl.reshape(both, [both.shape[0], 2 * both.shape[2]]),)
            pieces = pairs
    return pieces[0]


@triton.jit
def _dequantised(code, exponent, DOT: tl.constexpr):
    """Bytes [N, C] times powers of two with the biased exponents [N]: exact."""
    bits = tl.where(exponent == 0, 0x400000, exponent << 23)  # 0 is 2^-127, subnormal
    scale = tl.where(exponent == 255, 0x7FC00000, bits).to(tl.float32, bitcast=True)[:, None]
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
            [code, tl.broadcast_to(scale.to(tl.bfloat16), code.shape)],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=4,
        )
    else:
        return e4m3_value(code) * scale


@triton.jit
def _operand(weights, DOT: tl.constexpr):
    """`weights` in DOT. To bfloat16 by an instruction that the compiler may not repeat: it would
    rather hand all logits to every warpgroup in float32 and compute the weights twice."""
    if tl.bfloat16 == DOT:
        return tl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $0, $2, $1;",
            "=r,r,r",
            [weights],
            dtype=tl.bfloat16,
            is_pure=False,
            pack=2,
        )
    else:
        return weights.to(DOT)
