"""Rows 3 and 4: scores of paged FP8 index keys, and the best of them."""

import torch

from benchmarks.kernels.case import Case, Row, noise
from worker.kernels import reference
from worker.kernels.entry_pool import EntryPool, index_packing
from worker.kernels.load import KernelBackend

PAGE = 64  # keys


def scores(
    backend: KernelBackend, device: str, *, sequences: int, entries: int, heads: int, dim: int
) -> Case:
    """One query row of each sequence against all of its keys, whose pages are scattered."""
    pages = -(-entries // PAGE)
    keys = EntryPool.zeros(sequences * pages + 1, index_packing(PAGE, dim), torch.bfloat16, device)
    for first in range(0, sequences * pages * PAGE, 1 << 18):
        rows = torch.arange(first, min(first + (1 << 18), sequences * pages * PAGE), device=device)
        reference.store_entries(keys, rows, noise(len(rows), dim, device=device))
    table = torch.randperm(sequences * pages, device=device).view(sequences, pages)
    query = reference.quantise_index(noise(sequences, 1, heads, dim, device=device))
    weights = noise(sequences, 1, heads, device=device, dtype=torch.float32)
    packing = keys.packing
    assert packing is not None
    return Case(
        ours=lambda: backend.index_scores(query, weights, keys, table, entries),
        reference=lambda: reference.index_scores(query, weights, keys, table, entries),
        moved_bytes=sequences * entries * (packing.entry_bytes + 4) + query.nbytes,
        flops=2 * sequences * entries * heads * (dim + 1),
        tolerance=2.0**-10,
    )


def top(backend: KernelBackend, device: str, *, rows: int, entries: int, k: int) -> Case:
    """The k best of each row; scores are rounded, so that there are ties."""
    drawn = noise(rows, entries, device=device).float()
    visible = torch.full((rows,), entries, device=device)
    return Case(
        ours=lambda: backend.select_top(drawn, visible, k),
        reference=lambda: reference.select_top(drawn, visible, k),
        moved_bytes=drawn.nbytes + rows * k * 8,
        flops=0,
        tolerance=0.0,
    )


ROWS = (
    Row(
        "3",
        "index scores, 64 sequences of 128K, 32,768 keys each",
        scores,
        {"sequences": 64, "entries": 32_768, "heads": 64, "dim": 128},
        {"sequences": 2, "entries": 130, "heads": 8, "dim": 32},
        "us",
        138,
        105,
        ("deep_gemm",),
    ),
    Row(
        "4",
        "top 512 of 64 x 32,768, exact, ties to the lowest",
        top,
        {"rows": 64, "entries": 32_768, "k": 512},
        {"rows": 3, "entries": 300, "k": 20},
        "us",
        40,
        20,
        ("flashinfer",),
    ),
)
