"""The k best of each row's scores, exactly, ties to the lowest index, without a sort.

A program has a tile of a row in registers. It finds the k-th best by halving a range of scores, as
integers of the same order, and counting what is above; then it numbers what it keeps by a prefix
sum, in the order of indices. Of rows wider than a tile every tile keeps its own k best, and these
are a narrower row. NaN counts as above every number, and minus infinity as absent, as in the
reference.
"""

import torch
import triton
import triton.language as tl

from worker.config import ModelConfig
from worker.kernels.triton.variant import Variant

TILES = (2048, 8192)  # columns of a program: the fewest that hold a row, or the most
WARPS = {2048: 4, 8192: 8}
MOST_KEPT = TILES[-1] // 2  # of wider rows: else a pass would not narrow them
WAYS = tl.constexpr(4)
ABSENT = tl.constexpr(-(2**31))  # below every score
NAN = tl.constexpr(2**31 - 1)  # above every score
LARGEST = tl.constexpr(0x7F800000)  # the bits of infinity


@triton.jit
def ordered(score):
    """Integers in the order of float32: both zeros are 0."""
    bits = score.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    key = tl.where(bits < 0, -size, bits)
    key = tl.where(key == -LARGEST, ABSENT, key)
    return tl.where(size > LARGEST, NAN, key)


@triton.jit
def edge_of(keys, k, BLOCK_K: tl.constexpr):
    """What the k best of keys (WAYS, [N]) are no worse than, of which fewer than k are better: the
    k-th best, or less if nothing lies between. Where no more than k are present, what no key is."""
    present = (keys[0] > ABSENT).to(tl.int32)
    best = keys[0]
    for way in tl.static_range(1, WAYS):
        present += (keys[way] > ABSENT).to(tl.int32)
        best = tl.maximum(best, keys[way])
    # Of k groups or more each has a best, so the worst of these is not above the k-th.
    if best.shape[0] > BLOCK_K:
        best = tl.max(tl.reshape(best, [best.shape[0] // BLOCK_K, BLOCK_K]), 0)
    low = tl.min(best, 0) if best.shape[0] >= BLOCK_K else ABSENT
    high = tl.max(best, 0)
    if tl.sum(present, 0) <= k:
        low, high = ABSENT + 1, ABSENT + 1
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)  # their mean, rounded up; no sum overflows
        above = (keys[0] >= middle).to(tl.int32)
        for way in tl.static_range(1, WAYS):
            above += (keys[way] >= middle).to(tl.int32)
        count = tl.sum(above, 0)
        low = tl.where(count >= k, middle, low)
        high = tl.where(count > k, high, tl.where(count == k, middle, middle - 1))
    return low


@triton.jit
def select_kernel(
    scores,  # [T, row_stride], `ordered` already where there are `numbers`
    numbers,  # as scores: each one's index, or -1; or None: columns count from `first`
    visible,  # [T] indices there are; or None where there are `numbers`
    kept_keys,  # [T, kept_stride]: k `ordered` scores of each tile, or None
    kept_numbers,  # as kept_keys: ascending, then -1
    width,
    row_stride,
    kept_stride,
    first,
    k,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    scores += row * row_stride
    if numbers is None:
        width = tl.minimum(width, tl.load(visible + row).to(tl.int32) - first)
    else:
        numbers += row * row_stride
    # WAYS columns side by side belong to a lane: sums over a lane's columns need no other.
    column = tl.program_id(1) * TILE + tl.arange(0, TILE // WAYS) * WAYS
    keys: tl.tuple = ()
    for way in tl.static_range(WAYS):
        there = column + way < width
        if numbers is None:
            score = tl.load(scores + column + way, mask=there, other=float("-inf"))
            keys += (ordered(score.to(tl.float32)),)
        else:
            there = tl.load(numbers + column + way, mask=there, other=-1) >= 0
            keys += (tl.load(scores + column + way, mask=there, other=ABSENT),)
    edge = edge_of(keys, k, BLOCK_K)
    # Two counts in a number, of what is above the edge and at it: a tile has less than 2^16.
    counts: tl.tuple = ()
    own = tl.zeros([TILE // WAYS], tl.int32)
    for way in tl.static_range(WAYS):
        counts += (tl.where(keys[way] > edge, 1, tl.where(keys[way] == edge, 1 << 16, 0)),)
        own += counts[way]
    total, before = tl.sum(own, 0), tl.cumsum(own, 0) - own
    room = k - (total & 0xFFFF)
    kept_at = row * kept_stride + tl.program_id(1) * k
    for way in tl.static_range(WAYS):
        before += counts[way]
        place = (before & 0xFFFF) + tl.minimum(before >> 16, room) - 1
        fits = (counts[way] == 1) | ((counts[way] > 1) & ((before >> 16) <= room))
        if numbers is None:
            number = first + column + way
        else:
            number = tl.load(numbers + column + way, mask=fits, other=-1)
        number = number.to(kept_numbers.dtype.element_ty)
        tl.store(kept_numbers + kept_at + place, number, mask=fits)
        if kept_keys is not None:
            tl.store(kept_keys + kept_at + place, keys[way], mask=fits)
    place = tl.arange(0, BLOCK_K)
    rest = (place >= (total & 0xFFFF) + tl.minimum(total >> 16, room)) & (place < k)
    nothing = tl.full([BLOCK_K], -1, kept_numbers.dtype.element_ty)
    tl.store(kept_numbers + kept_at + place, nothing, mask=rest)


def select_top(scores: torch.Tensor, visible: torch.Tensor, k: int) -> torch.Tensor:
    """Indices [T, min(k, N)] of the k highest scores [T, N] among the first `visible` [T] of each
    row, ascending, padded with -1. On a tie the lowest index wins."""
    rows, entries = scores.shape
    best = torch.empty(rows, min(k, entries), dtype=torch.int64, device=scores.device)
    if best.numel():
        scores = scores if scores.stride(1) == 1 else scores.contiguous()
        keep_best(scores, visible, best)
    return best


def keep_best(
    scores: torch.Tensor,
    seen: torch.Tensor,
    best: torch.Tensor,
    best_keys: torch.Tensor | None = None,
) -> None:
    """Write to `best` [T, k] the indices of the k highest scores [T, N], ascending, then -1; and to
    `best_keys` what they are ordered by, if wanted. `seen` [T] says how many columns there are; or
    [T, N] the index of each, ascending, -1 where there is none, and scores are keys. k is at most N
    or `MOST_KEPT`. What is written must not overlap what is read."""
    rows, k = best.shape
    while (tiles := tiles_of(scores.shape[1])) > 1:
        assert k <= MOST_KEPT
        kept = torch.empty(rows, tiles * k, dtype=torch.int32, device=scores.device)
        keys = torch.empty_like(kept)
        keep_best_of_tiles(scores, seen, 0, k, kept, keys)
        scores, seen = keys, kept
    keep_best_of_tiles(scores, seen, 0, k, best, best_keys)


def keep_best_of_tiles(
    scores: torch.Tensor,
    seen: torch.Tensor,
    first: int,
    k: int,
    kept: torch.Tensor,
    keys: torch.Tensor | None,
) -> None:
    """One pass of `keep_best`: k columns of `kept` for each tile of `scores`. Where `seen` is a
    number of columns, the first column's index is `first`."""
    rows, width = scores.shape
    listed = seen.dim() == 2
    assert scores.stride(1) == kept.stride(1) == 1
    assert not listed or seen.stride() == scores.stride()
    assert keys is None or keys.stride() == kept.stride()
    tile = tile_of(width)
    select_kernel[rows, tiles_of(width)](
        scores,
        seen if listed else None,
        None if listed else seen,
        keys,
        kept,
        width,
        scores.stride(0),
        kept.stride(0),
        first,
        k,
        TILE=tile,
        BLOCK_K=triton.next_power_of_2(k),
        num_warps=WARPS[tile],
    )


def tile_of(width: int) -> int:
    """Columns of a program that works on rows of `width`."""
    return next((tile for tile in TILES if width <= tile), TILES[-1])


def tiles_of(width: int) -> int:
    """Programs that share a row."""
    return -(-width // tile_of(width))


def unsupported(config: ModelConfig) -> str | None:
    """Why a model's indexer selects too many, if so."""
    if config.index_topk <= MOST_KEPT:
        return None
    return f"index_topk is {config.index_topk}, above {MOST_KEPT}"


def _variant(name: str, tile: int, listed: bool, last: bool) -> Variant:
    signature = {"kept_numbers": "*i64" if last else "*i32"}
    signature |= {"numbers": "*i32", "scores": "*i32"} if listed else {"visible": "*i64"}
    signature |= {} if listed else {"scores": "*fp32"}
    signature |= {} if last else {"kept_keys": "*i32"}
    signature |= dict.fromkeys(("width", "row_stride", "kept_stride", "first", "k"), "i32")
    absent = {n: None for n in ("numbers", "visible", "kept_keys") if n not in signature}
    constants = {"TILE": tile, "BLOCK_K": 512, **absent}
    return Variant(name, select_kernel, signature, constants, WARPS[tile])


VARIANTS = (
    _variant("select, a tile of scores", TILES[1], listed=False, last=False),
    _variant("select, one tile of scores", TILES[1], listed=False, last=True),
    _variant("select, few scores", TILES[0], listed=False, last=True),
    _variant("select, carried on", TILES[1], listed=True, last=False),
    _variant("select, last of many candidates", TILES[1], listed=True, last=True),
    _variant("select, last of few candidates", TILES[0], listed=True, last=True),
)
