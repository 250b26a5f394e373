"""Cache memory as kernels see it: blocks of entries, as plain numbers or packed in FP8.

An entry is a token's key-value vector, a compressed one, or an index key. A block is what is
handed out at once: a page, or a state slot's ring. Row `r` of a pool is entry `r % entries` of
block `r // entries`. `worker.runner.kv_tensors` allocates pools; a backend reads and writes them.
"""

from dataclasses import dataclass

import torch

SCALE_GROUP = 64  # channels of a key-value entry that share a scale
SCALES_BYTES = 8  # a key-value entry's E8M0 scales are padded to multiples of this
E4M3_MAX = 448.0


@dataclass(frozen=True, slots=True)
class Packing:
    """A packed block, byte by byte: every entry's channels (`fp8_channels` in e4m3, then
    `bf16_channels` in bfloat16), then every entry's scales, one for each `group` of e4m3 channels,
    then padding up to a whole number of channel rows, so that rows of all blocks lie at multiples
    of `row_bytes`. Scales are powers of two, of groups whose largest magnitude counts as
    `smallest` at least."""

    entries: int
    fp8_channels: int
    bf16_channels: int
    group: int
    scale_dtype: torch.dtype
    scales_bytes: int
    smallest: float

    @property
    def row_bytes(self) -> int:
        """An entry without its scales."""
        return self.fp8_channels + 2 * self.bf16_channels

    @property
    def entry_bytes(self) -> int:
        """An entry with its scales."""
        return self.row_bytes + self.scales_bytes

    @property
    def block_bytes(self) -> int:
        """A block with its padding."""
        return -(-self.entries * self.entry_bytes // self.row_bytes) * self.row_bytes


def kv_packing(entries: int, head_dim: int, rope_dims: int) -> Packing:
    """DeepSeek's format of key-value entries, as FlashMLA reads it: 584 bytes at 448 + 64
    channels, with E8M0 scales; the rotated channels stay in bfloat16."""
    channels = head_dim - rope_dims
    scales = -(-channels // SCALE_GROUP)
    return Packing(
        entries=entries,
        fp8_channels=channels,
        bf16_channels=rope_dims,
        group=SCALE_GROUP,
        scale_dtype=torch.float8_e8m0fnu,
        scales_bytes=-(-scales // SCALES_BYTES) * SCALES_BYTES,
        smallest=1e-4,
    )


def index_packing(entries: int, dim: int) -> Packing:
    """The indexer's keys, as DeepGEMM reads them: 132 bytes at 128 channels, with one float32
    scale. What was rounded to e2m1 in blocks of 32 is stored without loss while the blocks' scales
    lie within 2**14 of each other: below that e4m3 runs out of exponents."""
    return Packing(
        entries=entries,
        fp8_channels=dim,
        bf16_channels=0,
        group=dim,
        scale_dtype=torch.float32,
        scales_bytes=torch.float32.itemsize,
        smallest=E4M3_MAX * torch.finfo(torch.float32).tiny,  # every scale is a normal number
    )


@dataclass(frozen=True, slots=True)
class EntryPool:
    """`data` [blocks, entries, D] of floats; with a `packing` uint8 [blocks, block_bytes]. Where a
    row may be absent (-1), the pool's last entry stands for it and is zero."""

    data: torch.Tensor
    packing: Packing | None = None

    @classmethod
    def zeros(
        cls, blocks: int, shape: Packing | tuple[int, int], dtype: torch.dtype, device: str
    ) -> "EntryPool":
        """A pool of zeros: packed, or of `shape` (entries, D) in `dtype`."""
        if isinstance(shape, Packing):
            size = (blocks, shape.block_bytes)
            return cls(torch.zeros(size, dtype=torch.uint8, device=device), shape)
        return cls(torch.zeros((blocks, *shape), dtype=dtype, device=device))

    @property
    def block_entries(self) -> int:
        """Entries in one block."""
        return self.packing.entries if self.packing else self.data.shape[1]

    @property
    def rows(self) -> int:
        """Entries in all blocks."""
        return len(self.data) * self.block_entries
