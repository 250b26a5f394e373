"""Rows 1, 2 and 7: attention to listed entries of packed pools."""

import torch

from benchmarks.kernels.case import Case, Row, noise
from worker.kernels import reference
from worker.kernels.entry_pool import EntryPool, kv_packing
from worker.kernels.load import KernelBackend

ROPE_DIMS = 64
PAGE = 64  # entries


def attention(
    backend: KernelBackend,
    device: str,
    *,
    sequences: int,
    rows: int,
    window: int,
    context: int,
    entries: int,
    heads: int,
    dim: int,
) -> Case:
    """The last `rows` tokens of each sequence, each with its window and with `entries` out of the
    sequence's `context`, in ascending order. Entries are in FP8, their pages anywhere in memory."""
    tokens, recent = sequences * rows, window + rows - 1
    pages = -(-context // PAGE)
    pools = [
        _pool(sequences + 1, recent, dim, device),
        _pool(sequences * pages + 1, PAGE, dim, device),
    ]
    owner = torch.arange(tokens, device=device)[:, None] // rows
    first = owner * recent + torch.arange(tokens, device=device)[:, None] % rows
    drawn = torch.rand(tokens, context, device=device).topk(entries).indices.sort().values
    table = torch.randperm(sequences * pages, device=device).view(sequences, pages)
    page = table[owner, drawn // PAGE]
    indices = [first + torch.arange(window, device=device), page * PAGE + drawn % PAGE]
    query = noise(tokens, heads, dim, device=device)
    sink = noise(heads, device=device, dtype=torch.float32)
    entry = kv_packing(PAGE, dim, ROPE_DIMS).entry_bytes
    read = sequences * (recent + (entries if rows == 1 else context)) * entry
    return Case(
        ours=lambda: backend.sparse_attention(query, pools, indices, sink, dim**-0.5),
        reference=lambda: reference.sparse_attention(query, pools, indices, sink, dim**-0.5),
        moved_bytes=read + 2 * query.nbytes,
        flops=4 * tokens * heads * (window + entries) * dim,
        tolerance=2.0**-6,
    )


def _pool(blocks: int, entries: int, dim: int, device: str) -> EntryPool:
    """Noise in all blocks but the last entry, which stands for what is absent."""
    pool = EntryPool.zeros(blocks, kv_packing(entries, dim, ROPE_DIMS), torch.bfloat16, device)
    for first in range(0, pool.rows - 1, 1 << 18):
        rows = torch.arange(first, min(first + (1 << 18), pool.rows - 1), device=device)
        reference.store_entries(pool, rows, noise(len(rows), dim, device=device))
    return pool


def _row(number: str, title: str, unit: str, aim: int, goal: int, **sizes: int) -> Row:
    real = {"window": 128, "heads": 64, "dim": 512, **sizes}
    tiny = {"window": 16, "heads": 4, "dim": 128, "sequences": 2, "context": 70}
    tiny |= {"rows": min(3, sizes["rows"]), "entries": min(sizes["entries"], 20)}
    return Row(
        number, title, attention, real, tiny, unit, aim, goal, rivals=("flash_mla", "flashinfer")
    )


ROWS = (
    _row(
        "1",
        "CSA decode, 128 sequences, 128 + 512 entries",
        "us",
        43,
        26,
        sequences=128,
        rows=1,
        context=8_192,
        entries=512,
    ),
    _row(
        "2a",
        "HCA decode, 64 sequences of 128K, 128 + 1,024 entries",
        "%",
        55,
        75,
        sequences=64,
        rows=1,
        context=1_024,
        entries=1_024,
    ),
    _row(
        "2b",
        "HCA decode, 16 sequences of 1M, 128 + 8,192 entries",
        "%",
        55,
        75,
        sequences=16,
        rows=1,
        context=8_192,
        entries=8_192,
    ),
    _row(
        "7",
        "prefill, 4,096 tokens, 128 + 512 entries",
        "TF",
        300,
        450,
        sequences=1,
        rows=4_096,
        context=8_192,
        entries=512,
    ),
)
