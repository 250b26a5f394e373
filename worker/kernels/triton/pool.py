"""Writes to entry pools and reads of whole blocks, in either format; an entry is a program."""

from typing import Any

import torch
import triton
import triton.language as tl

from worker.kernels.entry_pool import EntryPool, Packing, index_packing, kv_packing
from worker.kernels.triton.entry_format import write_entry
from worker.kernels.triton.rounding import e4m3_value, narrowed
from worker.kernels.triton.variant import Variant


@triton.jit
def store_kernel(
    entries,  # [N, WIDTH]
    rows,  # [N]
    pool,  # [blocks, entries, WIDTH], or bytes
    WIDTH: tl.constexpr,
    PACKING: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    item = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK_D)
    x = tl.load(entries + item * WIDTH + channel, mask=channel < WIDTH, other=0.0)
    row = tl.load(rows + item).to(tl.int64)
    write_entry(x.to(tl.float32), channel, pool, row, WIDTH, PACKING, GROUP)


@triton.jit
def load_kernel(
    pool,  # bytes
    blocks,  # [B]
    out,  # [B, entries, WIDTH]
    WIDTH: tl.constexpr,
    PACKING: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    item = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK_D)
    block = pool + tl.load(blocks + item // PACKING.entries).to(tl.int64) * PACKING.block_bytes
    at = item % PACKING.entries
    entry = block + at * PACKING.row_bytes
    scales = block + PACKING.entries * PACKING.row_bytes + at * PACKING.scales_bytes
    fp8 = channel < PACKING.fp8_channels
    value = e4m3_value(tl.load(entry + channel, mask=fp8, other=0))
    group = channel // PACKING.group
    if PACKING.scale_dtype.itemsize == 1:
        exponent = tl.load(scales + group, mask=fp8, other=127).to(tl.int32)
        bits = tl.where(exponent == 0, 0x400000, exponent << 23)  # byte 0 is 2^-127, subnormal
        bits = tl.where(exponent == 255, 0x7FC00000, bits)
        value *= bits.to(tl.float32, bitcast=True)
    else:
        value *= tl.load(scales.to(tl.pointer_type(tl.float32)) + group, mask=fp8, other=1.0)
    if PACKING.bf16_channels:
        # By its bits: the interpreter's conversion loses subnormal numbers.
        plain = (entry + PACKING.fp8_channels).to(tl.pointer_type(tl.int16))
        at16 = channel - PACKING.fp8_channels
        x16 = tl.load(plain + at16, mask=(at16 >= 0) & (channel < WIDTH), other=0)
        value = tl.where(fp8, value, (x16.to(tl.int32) << 16).to(tl.float32, bitcast=True))
    value = narrowed(value, out.dtype.element_ty)
    tl.store(out + item * WIDTH + channel, value, mask=channel < WIDTH)


def store_entries(pool: EntryPool, rows: torch.Tensor, entries: torch.Tensor) -> None:
    """Write `entries` [N, D] of any float dtype to `rows` [N], rounded to the pool's format."""
    if len(rows) == 0:  # most decode steps finish no entry
        return
    width = entries.shape[1]
    store_kernel[len(rows),](
        entries.contiguous(),
        rows,
        pool.data,
        **entry_constants(pool.packing, width),
        num_warps=warps_for(width),
    )


def load_blocks(pool: EntryPool, blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The entries [B, entries, D] of whole `blocks` [B]; a packed pool's in `dtype`, which holds
    them exactly if it is bfloat16 or wider."""
    packing = pool.packing
    if packing is None:
        return pool.data.index_select(0, blocks)
    width = packing.fp8_channels + packing.bf16_channels
    shape = (len(blocks), packing.entries, width)
    out = torch.empty(shape, dtype=dtype, device=pool.data.device)
    if len(blocks):
        load_kernel[len(blocks) * packing.entries,](
            pool.data,
            blocks,
            out,
            WIDTH=width,
            PACKING=packing,
            BLOCK_D=triton.next_power_of_2(width),
            num_warps=warps_for(width),
        )
    return out


def entry_constants(packing: Packing | None, width: int) -> dict[str, Any]:
    """The constants of a kernel that writes entries of `width` channels."""
    block = triton.next_power_of_2(width)
    group = min(block, triton.next_power_of_2(packing.group)) if packing else block
    # A group ends where its scale does, unless it is the whole entry.
    assert packing is None or group == packing.group or packing.group >= packing.fp8_channels
    return {"WIDTH": width, "PACKING": packing, "GROUP": group, "BLOCK_D": block}


def warps_for(width: int) -> int:
    """Warps of a program that holds `width` channels: four or more for each thread."""
    return 4 if width > 256 else 2 if width > 128 else 1


def _stored(name: str, packing: Packing, width: int) -> Variant:
    return Variant(
        f"store, {name}",
        store_kernel,
        {"entries": "*bf16", "rows": "*i64", "pool": "*u8"},
        entry_constants(packing, width),
        warps_for(width),
    )


def _loaded(name: str, packing: Packing, width: int) -> Variant:
    return Variant(
        f"load blocks, {name}",
        load_kernel,
        {"pool": "*u8", "blocks": "*i64", "out": "*bf16"},
        {"WIDTH": width, "PACKING": packing, "BLOCK_D": width},
        warps_for(width),
    )


VARIANTS = (
    _stored("window", kv_packing(128, 512, 64), 512),
    _stored("CSA entry", kv_packing(64, 512, 64), 512),
    _stored("index key", index_packing(64, 128), 128),
    _loaded("window", kv_packing(128, 512, 64), 512),
    _loaded("index keys", index_packing(64, 128), 128),
)
