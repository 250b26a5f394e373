"""Reads and writes of entry pools, in either format."""

import torch
from torch.nn.functional import embedding

from worker.kernels.entry_pool import E4M3_MAX, EntryPool, Packing
from worker.kernels.reference.quantise import scaled_blocks


def store_entries(pool: EntryPool, rows: torch.Tensor, entries: torch.Tensor) -> None:
    """Write `entries` [N, D] of any float dtype to `rows` [N], rounded to the pool's format."""
    if pool.packing is None:
        pool.data.flatten(0, 1)[rows] = entries.to(pool.data.dtype)
        return
    if len(rows) == 0:  # most decode steps finish no entry
        return
    packing = pool.packing
    blocks, at = rows // packing.entries, rows % packing.entries
    values = entries[:, : packing.fp8_channels]
    scaled, scale = scaled_blocks(values, packing.group, E4M3_MAX, packing.smallest)
    codes = scaled.to(torch.float8_e4m3fn).flatten(-2)[:, : packing.fp8_channels]
    rotated = entries[:, packing.fp8_channels :].to(torch.bfloat16)
    channels = torch.cat((codes.view(torch.uint8), rotated.contiguous().view(torch.uint8)), 1)
    _channels(pool.data, packing)[blocks, at] = channels
    scale = scale.to(packing.scale_dtype)  # exact: they are powers of two
    _scales(pool.data, packing)[blocks, at] = scale.view(torch.uint8).flatten(1)


def load_blocks(pool: EntryPool, blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The entries [B, entries, D] of whole `blocks` [B]; a packed pool's in `dtype`, which holds
    them exactly if it is bfloat16 or wider."""
    data = pool.data.index_select(0, blocks)
    if pool.packing is None:
        return data
    return _unpack(_channels(data, pool.packing), _scales(data, pool.packing), pool.packing, dtype)


def load_rows(pool: EntryPool, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Entries [..., D] of `rows` [...], in the dtype of `load_blocks`. Row -1 is the pool's last,
    hence zero: an absent entry can bring no stale value into a sum."""
    rows = torch.where(rows < 0, pool.rows - 1, rows)
    if pool.packing is None:
        # embedding copies whole rows; indexing with a tensor goes element by element.
        return embedding(rows, pool.data.flatten(0, 1))
    packing = pool.packing
    blocks, at = rows // packing.entries, rows % packing.entries
    stride = packing.block_bytes // packing.row_bytes
    channels = pool.data.view(-1, packing.row_bytes)
    picked = channels.index_select(0, (blocks * stride + at).flatten())
    scales = _scales(pool.data, packing)[blocks, at]
    return _unpack(picked.view(*rows.shape, packing.row_bytes), scales, packing, dtype)


def _unpack(
    channels: torch.Tensor, scales: torch.Tensor, packing: Packing, dtype: torch.dtype
) -> torch.Tensor:
    values = channels[..., : packing.fp8_channels].view(torch.float8_e4m3fn).float()
    scale = scales.contiguous().view(packing.scale_dtype).float()
    scale = scale.repeat_interleave(packing.group, -1)[..., : packing.fp8_channels]
    rotated = channels[..., packing.fp8_channels :].view(torch.bfloat16)
    return torch.cat(((values * scale).to(dtype), rotated.to(dtype)), -1)


def _channels(data: torch.Tensor, packing: Packing) -> torch.Tensor:
    """A view of blocks [B, block_bytes]: [B, entries, row_bytes]."""
    stop = packing.entries * packing.row_bytes
    return torch.unflatten(data[:, :stop], 1, (packing.entries, -1))


def _scales(data: torch.Tensor, packing: Packing) -> torch.Tensor:
    """A view of blocks [B, block_bytes]: [B, entries, bytes], without what only pads."""
    start, stop = packing.entries * packing.row_bytes, packing.entries * packing.entry_bytes
    scales = torch.unflatten(data[:, start:stop], 1, (packing.entries, -1))
    groups = -(-packing.fp8_channels // packing.group)
    return scales[..., : groups * packing.scale_dtype.itemsize]
