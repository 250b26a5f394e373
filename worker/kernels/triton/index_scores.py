"""Scores of paged index keys: score_j = s_j sum_h w_h relu(q_h . k_j), s_j the key's own scale.

Keys are the left side of a product, from registers; the heads of a program's rows wait in shared
memory for all of its keys.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from worker.config import ModelConfig
from worker.kernels.entry_pool import EntryPool, index_packing
from worker.kernels.triton.index_operands import (
    loaded_key,
    page_of,
    row_heads,
    tile_keys,
    tile_pages,
)
from worker.kernels.triton.rounding import INTERPRETED
from worker.kernels.triton.variant import Variant

TILE = 64  # keys: 16 of each warp
WARPS = 4
CHUNK_BYTES = 64  # of a key, that four lanes load at once
LEAST = 16  # heads or channels of a product
MOST_ROWS = 4  # that share a program's keys
MOST_QUERY_BYTES = 128 << 10  # of those rows, in shared memory
PROGRAMS = 2048  # fill a GPU a few times over, so that sequences of unlike lengths even out
MOST_TILES = 16  # of a program
ALIGNED = 16  # rows of so many scores begin where a kernel may load several at once


@triton.jit
def scores_kernel(
    query,  # [B, rows, HEADS, WIDTH]
    weights,  # [B, rows, HEADS]
    pool,  # [blocks, entries, WIDTH], or bytes
    block_table,  # [B, table_stride]
    visible,  # [B, rows], or None: every row sees every key
    scores,  # [B, rows, row_stride] of the keys from `first` on
    rows,
    table_stride,
    row_stride,
    first,
    stop,
    tiles,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PER_PAGE: tl.constexpr,
    PACKING: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    TILE: tl.constexpr,
    RUN: tl.constexpr,
    DOT: tl.constexpr,
):
    sequence = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS
    begin = first + tl.program_id(1) * tiles * TILE
    end = tl.minimum(begin + tiles * TILE, stop)
    if visible is not None:
        own = row + tl.arange(0, ROWS)
        seen = tl.load(visible + sequence * rows + own, mask=own < rows, other=0)
        end = tl.minimum(end, tl.max(seen, 0).to(tl.int32))
    if begin >= end:
        return
    heads: tl.tuple = ()
    weight: tl.tuple = ()
    for r in tl.static_range(ROWS):
        h, w = row_heads(
            query, weights, sequence * rows + row + r, rows - row - r,
            HEADS, WIDTH, BLOCK_H, CHUNK, CHUNKS, DOT,
        )  # fmt: skip
        heads += (h,)
        weight += (w,)
    page_size = PER_PAGE * WIDTH if PACKING is None else PACKING.block_bytes
    table = block_table + sequence * table_stride
    place, loaded = tl.arange(0, TILE), loaded_key(TILE)
    pages = tile_pages(table, begin, end, PER_PAGE, RUN, TILE)
    for tile in range(begin, end, TILE):
        page = page_of(loaded, pages, RUN, TILE) * page_size
        slot = (tile + loaded) % PER_PAGE
        keys = tile_keys(pool, page, slot, WIDTH, PACKING, CHUNK, CHUNKS, DOT)
        key = tile + place
        scale = tl.full([TILE], 1.0, tl.float32)
        if PACKING is not None:
            scales = pool + page_of(place, pages, RUN, TILE) * page_size + PER_PAGE * WIDTH
            scale = tl.load(scales.to(tl.pointer_type(tl.float32)) + key % PER_PAGE)
        # Of the next tile, by now: the addresses are there when its keys are asked for.
        pages = tile_pages(table, tile + TILE, end, PER_PAGE, RUN, TILE)
        for r in tl.static_range(ROWS):
            product = tl.zeros([TILE, BLOCK_H], tl.float32)
            for chunk in tl.static_range(CHUNKS):
                product = tl.dot(keys[chunk], heads[r][chunk], product, input_precision="tf32x3")
            product = tl.maximum(product, 0.0, propagate_nan=tl.PropagateNan.ALL)
            score = scale * tl.sum(product * weight[r][None, :], 1)
            out = scores + (sequence * rows + row + r) * row_stride - first
            tl.store(out + key, score, mask=key < tl.where(row + r < rows, end, 0))


def index_scores(
    query: torch.Tensor,  # [B, R, H, D] R rows of each of B sequences
    weights: torch.Tensor,  # [B, R, H]
    keys: EntryPool,  # blocks are pages
    block_table: torch.Tensor,  # [B, P] page ids, enough for `entries`
    entries: int,
) -> torch.Tensor:
    """Scores [B, R, entries] float32 of the first `entries` keys of each sequence."""
    size = (*query.shape[:2], -(-entries // ALIGNED) * ALIGNED)
    scores = torch.empty(size, dtype=torch.float32, device=query.device)[..., :entries]
    score_keys(query, weights, keys, block_table, None, 0, scores)
    return scores


def score_keys(
    query: torch.Tensor,
    weights: torch.Tensor,
    keys: EntryPool,
    block_table: torch.Tensor,
    visible: torch.Tensor | None,
    first: int,
    scores: torch.Tensor,
) -> None:
    """Write to `scores` [B, R, N] those of the N keys from `first` on, a multiple of `TILE`; what
    lies beyond `visible` [B, R] of all rows of a program stays as it was."""
    assert first % TILE == 0
    assert scores.stride(-1) == 1
    sequences, rows, heads, width = query.shape
    count = scores.shape[2]
    if scores.numel() == 0:
        return
    constants = score_constants(query.dtype, rows, heads, width, keys)
    groups = triton.cdiv(rows, constants["ROWS"])
    tiles = triton.cdiv(count, TILE)
    stages, registers = limits_of(constants)
    per_program = max(1, min(MOST_TILES, sequences * groups * tiles // PROGRAMS))
    scores_kernel[groups, triton.cdiv(tiles, per_program), sequences](
        query.contiguous(),
        weights.contiguous(),
        keys.data,
        block_table,
        visible,
        scores,
        rows,
        block_table.stride(0),
        scores.stride(1),
        first,
        first + count,
        per_program,
        **constants,
        num_warps=WARPS,
        num_stages=stages,
        maxnreg=registers,
    )


def score_constants(
    dtype: torch.dtype, rows: int, heads: int, width: int, keys: EntryPool
) -> dict[str, Any]:
    """The constants of a kernel for `rows` queries of `dtype` per sequence."""
    block_h = max(LEAST, triton.next_power_of_2(heads))
    block_d = max(LEAST, triton.next_power_of_2(width))
    dot = _product_dtype(dtype, keys)
    fitting = MOST_QUERY_BYTES // (block_h * block_d * dot.primitive_bitwidth // 8)
    most = 1 if dot == tl.float32 else MOST_ROWS  # float32 proves, and does not serve
    chunk = min(CHUNK_BYTES // keys.data.itemsize, block_d)
    return {
        "HEADS": heads,
        "WIDTH": width,
        "PER_PAGE": keys.block_entries,
        "PACKING": keys.packing,
        "ROWS": max(1, min(most, fitting, triton.next_power_of_2(rows))),
        "BLOCK_H": block_h,
        "CHUNK": chunk,
        "CHUNKS": block_d // chunk,
        "TILE": TILE,
        "RUN": math.gcd(keys.block_entries, TILE),
        "DOT": dot,
    }


def limits_of(constants: dict[str, Any]) -> tuple[int, int | None]:
    """Stages of the loop over keys, and registers, if capped: of packed keys, five programs of one
    row share a multiprocessor, four of two, three of four."""
    stages, registers = {1: (4, 104), 2: (3, 128), 4: (2, 168)}[constants["ROWS"]]
    return stages, registers if constants["DOT"] == tl.float16 else None


def _product_dtype(query: torch.dtype, keys: EntryPool) -> tl.dtype:
    """The narrowest in which products are exact and sums are float32's: e4m3 widens to float16,
    for of sums of e4m3 products Hopper's tensor cores keep 14 bits."""
    if keys.packing is not None and query.itemsize == 2:
        return tl.float16
    if keys.data.dtype == query == torch.bfloat16 and not INTERPRETED.value:
        return tl.bfloat16
    return tl.float32


def unsupported(config: ModelConfig) -> str | None:
    """Why a model's indexer does not fit, if so."""
    heads = max(LEAST, triton.next_power_of_2(config.index_n_heads))
    width = max(LEAST, triton.next_power_of_2(config.index_head_dim))
    if heads * width * torch.float32.itemsize <= MOST_QUERY_BYTES:
        return None
    return (
        f"{config.index_n_heads} index heads of {config.index_head_dim} channels do not fit into "
        f"{MOST_QUERY_BYTES >> 10} KiB"
    )


def _variant(name: str, rows: int, keys: EntryPool) -> Variant:
    signature = {"query": "*bf16", "weights": "*fp32", "block_table": "*i64", "scores": "*fp32"}
    signature |= {"visible": "*i64", "pool": "*bf16" if keys.packing is None else "*u8"}
    counts = ("rows", "table_stride", "row_stride", "first", "stop", "tiles")
    signature |= dict.fromkeys(counts, "i32")
    constants = score_constants(torch.bfloat16, rows, 64, 128, keys)
    return Variant(name, scores_kernel, signature, constants, WARPS, *limits_of(constants))


_PACKED = EntryPool.zeros(1, index_packing(64, 128), torch.bfloat16, "cpu")
_PLAIN = EntryPool.zeros(1, (64, 128), torch.bfloat16, "cpu")
VARIANTS = (
    _variant("index scores, a row", 1, _PACKED),
    _variant("index scores, 2 rows", 2, _PACKED),
    _variant("index scores, 4 rows", 4, _PACKED),
    _variant("index scores, a row, bf16 keys", 1, _PLAIN),
    _variant("index scores, 4 rows, bf16 keys", 4, _PLAIN),
)
