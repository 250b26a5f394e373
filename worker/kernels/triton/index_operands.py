"""Index keys and queries as the two sides of a product, for the kernel of `index_scores`.

A quad of lanes loads 64 bytes of a key, 16 each. That is the order in which the tensor core wants a
key's channels, if channels are counted so: a sum over them does not mind, as long as queries are
loaded in the same order. So keys are widened where they arrive, without a trip through shared
memory.
"""

import triton
import triton.language as tl

from worker.kernels.triton.rounding import (
    INTERPRETED,
    e4m3_value,
    magnitude_bits,
    power_of_two,
    reciprocal,
)


@triton.jit
def product_channel(CHUNK: tl.constexpr):
    """The channel of a chunk at each place [CHUNK] of a product's inner axis."""
    place = tl.arange(0, CHUNK)
    lane, step, half = place % 8 // 2, place // 16, place // 8 % 2
    return lane * (CHUNK // 4) + step * 4 + half * 2 + place % 2


@triton.jit
def loaded_key(TILE: tl.constexpr):
    """Which key of a tile is loaded at each place [TILE], so that it lands where `fragment` wants
    it: a warp loads 8 keys at once, and multiplies 16 that follow each other."""
    place = tl.arange(0, TILE)
    return place // 8 % 4 * 16 + place // 32 * 8 + place % 8


@triton.jit
def fragment(k):
    """A chunk of the keys of `loaded_key` [64, CHUNK] as the left side of a product: a renaming of
    registers, without a move."""
    chunk: tl.constexpr = k.shape[1]
    k = tl.reshape(k, [2, 4, 8, 4, chunk // 16, 2, 2])
    return tl.reshape(tl.permute(k, (1, 0, 2, 4, 5, 3, 6)), [64, chunk])


@triton.jit
def row_heads(
    query,
    weights,
    row,
    left,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    DOT: tl.constexpr,
):
    """The heads of one row, chunk by chunk [CHUNK, BLOCK_H], and their weights [BLOCK_H]; zeros if
    no rows are `left`."""
    head = tl.arange(0, BLOCK_H)
    inside = head < HEADS * tl.minimum(left, 1)
    at = row * HEADS + head
    weight = tl.load(weights + at, mask=inside, other=0.0).to(tl.float32)
    loaded: tl.tuple = ()
    for chunk in tl.static_range(CHUNKS):
        channel = chunk * CHUNK + product_channel(CHUNK)[None, :]
        mask = inside[:, None] & (channel < WIDTH)
        loaded += (tl.load(query + at[:, None] * WIDTH + channel, mask=mask, other=0.0),)
    factor = tl.full([BLOCK_H], 1.0, tl.float32)
    if tl.float16 == DOT:
        # bfloat16 has more exponents: the largest channel of a head is brought to 2^14, and what
        # falls below float16 is below 2^-38 of that channel.
        peak = tl.zeros([BLOCK_H], tl.int32)
        for chunk in tl.static_range(CHUNKS):
            peak = tl.maximum(peak, tl.max(magnitude_bits(loaded[chunk]), 1) >> 23)
        exponent = tl.where(peak == 255, 255, tl.minimum(tl.maximum(peak - 14, 1), 253))
        factor = reciprocal(exponent)
        weight *= power_of_two(exponent)
    heads: tl.tuple = ()
    for chunk in tl.static_range(CHUNKS):
        heads += (tl.trans((loaded[chunk].to(tl.float32) * factor[:, None]).to(DOT)),)
    tl.debug_barrier()  # else the loads of all rows come first, and do not fit into registers
    return heads, weight


@triton.jit
def tile_pages(table, tile, end, PER_PAGE: tl.constexpr, RUN: tl.constexpr, TILE: tl.constexpr):
    """The page of each RUN keys of a tile; from `end` on the last key's, which exists."""
    pages: tl.tuple = ()
    for run in tl.static_range(TILE // RUN):
        pages += (tl.load(table + tl.minimum(tile + run * RUN, end - 1) // PER_PAGE).to(tl.int64),)
    return pages


@triton.jit
def page_of(place, pages, RUN: tl.constexpr, TILE: tl.constexpr):
    """The page of each key [TILE]."""
    page = tl.zeros([TILE], tl.int64) + pages[0]
    for run in tl.static_range(1, TILE // RUN):
        page = tl.where(place >= run * RUN, pages[run], page)
    return page


@triton.jit
def tile_keys(
    pool,
    page,
    slot,
    WIDTH: tl.constexpr,
    PACKING: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    DOT: tl.constexpr,
):
    """The keys of pages [64] at `slot` [64], chunk by chunk, as left sides of products."""
    if PACKING is None:
        entry = pool + page + slot * WIDTH
    else:
        entry = pool + page + slot * PACKING.row_bytes
    keys: tl.tuple = ()
    for chunk in tl.static_range(CHUNKS):
        channel = chunk * CHUNK + tl.arange(0, CHUNK)[None, :]
        k = tl.load(entry[:, None] + channel, mask=channel < WIDTH, other=0)
        if PACKING is not None:
            k = e4m3_value(k) if INTERPRETED else k.to(tl.float8e4nv, bitcast=True)
        keys += (fragment(k.to(DOT)),)
    return keys
