"""Sparse attention: what `attend_kernel` and `combine_kernel` are launched with."""

from functools import cache
from math import ceil, e, log2
from typing import Any

import torch
import triton
import triton.language as tl

from worker.config import ModelConfig
from worker.kernels.entry_pool import SCALE_GROUP, EntryPool, Packing, kv_packing
from worker.kernels.triton.attend import attend_kernel
from worker.kernels.triton.combine import combine_kernel
from worker.kernels.triton.variant import Variant

MOST_HEADS = 64  # of a program: the rows of one warpgroup's product
HOPPER_PROCESSORS = 132
OVERHEAD_TILES = 2  # a program's reading of the query and writing of the result, in tiles' time
COMBINE_TILES = 3  # what putting shares together takes, in tiles' time
MOST_WAVES = 4  # of shares: bounds the memory for them
PIECE = SCALE_GROUP  # channels read at once; those of a packed entry have one scale
MOST_PIECES = 8


def unsupported(config: ModelConfig) -> str | None:
    """Why a model's heads do not fit, if so."""
    formats = (config.head_dim - config.qk_rope_head_dim, config.qk_rope_head_dim)
    if len(pieces(formats)) > MOST_PIECES:
        return f"head_dim {config.head_dim} is above {MOST_PIECES * PIECE}"
    return None


def sparse_attention(
    query: torch.Tensor,  # [T, H, D]
    pools: list[EntryPool],  # one or two; a row is both key and value
    indices: list[torch.Tensor],  # each [T, K]: rows of the pool beside it; -1 is absent
    sink: torch.Tensor,  # [H] float32 logits that take weight and give no value
    scale: float,
) -> torch.Tensor:
    """Attention output [T, H, D] in the query's dtype, which products' operands have too."""
    tokens, heads, width = query.shape
    assert len(pools) == len(indices) <= 2
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if out.numel() == 0:
        return out
    first, second = pools[0], pools[1] if len(pools) == 2 else None
    counts = [rows.shape[1] for rows in indices] + [0] * (2 - len(pools))
    constants = attend_constants(
        heads, width, first.packing, second.packing if second else None, query.dtype
    )
    block_n = constants["BLOCK_N"]
    tiles = sum(triton.cdiv(count, block_n) for count in counts)
    blocks = triton.cdiv(heads, constants["BLOCK_H"])
    splits = splits_for(tokens * blocks, tiles, _processors(query.device))
    parts, peaks, totals = out, None, None
    if splits > 1:
        parts = query.new_empty((tokens, splits, heads, width), dtype=torch.float32)
        peaks, totals = query.new_empty((2, tokens, splits, heads), dtype=torch.float32)
    attend_kernel[tokens, splits, blocks](
        query.contiguous(),
        first.data,
        indices[0].contiguous(),
        counts[0],
        second.data if second else None,
        indices[1].contiguous() if second else None,
        counts[1],
        sink,
        scale * log2(e),
        splits,
        parts,
        peaks,
        totals,
        **constants,
    )
    if splits > 1:
        combine_kernel[tokens, heads](
            parts, peaks, totals, sink, splits, out, **combine_constants(heads, width)
        )
    return out


def attend_constants(
    heads: int, width: int, window: Packing | None, entries: Packing | None, dtype: torch.dtype
) -> dict[str, Any]:
    """The constants of a launch but `SPLITS`, and its warps and stages."""
    packing = window or entries
    formats = (width,) if packing is None else (packing.fp8_channels, packing.bf16_channels)
    wide = dtype != torch.bfloat16  # more bytes an operand: fewer of them
    most_heads = 16 if wide else MOST_HEADS
    return {
        "HEADS": heads,
        "WIDTH": width,
        "PIECES": pieces(formats),
        "PIECE": PIECE,
        "WINDOW_PACKING": window,
        "ENTRY_PACKING": entries,
        # The interpreter's product of bfloat16 is wrong.
        "DOT": tl.float32 if wide or triton.knobs.runtime.interpret else tl.bfloat16,
        "BLOCK_H": min(most_heads, max(16, triton.next_power_of_2(heads))),
        "BLOCK_N": 16 if wide else 64,
        "num_warps": 8,
    }


def combine_constants(heads: int, width: int) -> dict[str, Any]:
    """The constants of a launch that puts splits together."""
    block = triton.next_power_of_2(width)
    return {"HEADS": heads, "WIDTH": width, "BLOCK_D": block}


def pieces(formats: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Channels of the formats one after the other, cut in (first, end): each piece is of one
    format and at most PIECE long. A power of two of them; what is too many is empty."""
    found: list[tuple[int, int]] = []
    first = 0
    for channels in formats:
        stop = first + channels
        found += [(at, min(at + PIECE, stop)) for at in range(first, stop, PIECE)]
        first = stop
    empty = triton.next_power_of_2(len(found)) - len(found)
    return (*found, *[(first, first)] * empty)


def splits_for(programs: int, tiles: int, processors: int) -> int:
    """How many shares the tiles of each of `programs` are cut in: enough for all processors, but
    no wave of them nearly empty."""

    def time(splits: int) -> int:  # in tiles
        waves = ceil(programs * splits / processors)
        combined = COMBINE_TILES if splits > 1 else 0
        return waves * (ceil(tiles / splits) + OVERHEAD_TILES) + combined

    most = min(tiles, MOST_WAVES * processors // programs)
    return min(range(1, max(1, most) + 1), key=time)


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return HOPPER_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def _variant(
    name: str, window: Packing | None, entries: Packing | None, *, alone: bool = False, shares: bool
) -> Variant:
    """V4-Flash's heads in bfloat16; `alone` in layers without compressed entries."""
    types = {"query": "*bf16", "window": "*u8" if window else "*bf16", "window_rows": "*i64"}
    types |= {"window_count": "i32", "entry_count": "i32", "sink": "*fp32", "scale": "fp32"}
    types |= {"splits": "i32", "out": "*fp32" if shares else "*bf16"}
    constants = attend_constants(64, 512, window, entries, torch.bfloat16)
    constants["DOT"] = tl.bfloat16  # ahead of time nothing is interpreted
    if alone:
        constants |= {"entries": None, "entry_rows": None}
    else:
        types |= {"entries": "*u8" if entries else "*bf16", "entry_rows": "*i64"}
    if shares:
        types |= {"peaks": "*fp32", "totals": "*fp32"}
    else:
        constants |= {"peaks": None, "totals": None}
    return Variant(f"attend, {name}", attend_kernel, types, constants, constants.pop("num_warps"))


_PARTS = {"parts": "*fp32", "peaks": "*fp32", "totals": "*fp32", "sink": "*fp32"}
_WINDOW, _ENTRIES = kv_packing(128, 512, 64), kv_packing(64, 512, 64)
VARIANTS = (
    _variant("FP8 window and entries", _WINDOW, _ENTRIES, shares=False),
    _variant("FP8 window and entries, a share", _WINDOW, _ENTRIES, shares=True),
    _variant("window of a chunk, FP8 entries", None, _ENTRIES, shares=False),
    _variant("BF16 window and entries", None, None, shares=False),
    _variant("BF16 window and entries, a share", None, None, shares=True),
    _variant("FP8 window alone", _WINDOW, None, alone=True, shares=False),
    _variant("window of a chunk alone", None, None, alone=True, shares=False),
    Variant(
        "attend, shares combined",
        combine_kernel,
        {**_PARTS, "splits": "i32", "out": "*bf16"},
        combine_constants(64, 512),
    ),
)
