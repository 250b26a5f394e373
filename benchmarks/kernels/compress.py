"""Row 5: from a layer's projections to stored entries: pooled, normed, rotated, rounded, stored."""

import torch

from benchmarks.kernels.case import Case, Row, noise
from worker.kernels import reference
from worker.kernels.entry_pool import EntryPool, kv_packing
from worker.kernels.load import KernelBackend

RATIO = 4
OVERLAPPING = 2 * RATIO
ROPE_DIMS = 64
PAGE = 64  # entries


def compress(backend: KernelBackend, device: str, *, tokens: int, dim: int) -> Case:
    """A chunk of one sequence through CSA: an entry pools its own four tokens' second half and the
    first half of the four before."""
    entries = tokens // RATIO
    projected = noise(tokens, 2, 2 * dim, device=device, dtype=torch.float32)
    tail = noise(1, OVERLAPPING, 2, 2 * dim, device=device, dtype=torch.float32)
    first = torch.arange(entries, device=device)[:, None] * RATIO - RATIO
    sources = first + torch.arange(OVERLAPPING, device=device)
    # What comes before the chunk is the last of the ring, which lies behind the chunk.
    sources = torch.where(sources < 0, tokens + OVERLAPPING + sources, sources)
    turn = torch.polar(
        torch.ones(entries, ROPE_DIMS // 2, device=device),
        torch.rand(entries, ROPE_DIMS // 2, device=device),
    )
    bias = noise(RATIO, 2 * dim, device=device, dtype=torch.float32)
    norm = noise(dim, device=device, dtype=torch.float32)
    slots = torch.zeros(1, dtype=torch.long, device=device)
    blocks = -(-entries // PAGE) + 1
    pool = EntryPool.zeros(blocks, kv_packing(PAGE, dim, ROPE_DIMS), torch.bfloat16, device)
    rows = torch.arange(entries, device=device)
    packing = pool.packing
    assert packing is not None

    def run(kernels: KernelBackend) -> torch.Tensor:
        kernels.compress_entries(
            projected, tail, slots, sources, bias, norm, turn, pool, rows,
            eps=1e-6, rounding="entry",
        )  # fmt: skip
        return pool.data

    def values(kernels: KernelBackend) -> torch.Tensor:
        run(kernels)
        return reference.load_blocks(pool, torch.arange(blocks, device=device), torch.float32)

    return Case(
        ours=lambda: run(backend),
        reference=lambda: run(reference),
        moved_bytes=projected.nbytes + entries * packing.entry_bytes,
        flops=0,
        tolerance=2.0**-3,  # a code of e4m3 may round the other way
        checked=(lambda: values(backend), lambda: values(reference)),
    )


ROWS = (
    Row(
        "5",
        "compress and store, 8,192 tokens, CSA",
        compress,
        {"tokens": 8_192, "dim": 512},
        {"tokens": 40, "dim": 128},
        "%",
        60,
        80,
    ),
)
