"""Lays the sequences of one forward out flat: [T] tokens, and the indices every layer shares.

All positions of all sequences lie on one token axis. Where a layer needs tokens from before the
chunk it reads a *source*: the chunk's T rows, then each sequence's ring, then one row that means
"absent". `lay_out` computes the indices once; layers only gather.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from worker.batch import ScheduledSequence
from worker.config import CSA_RATIO, EngineConfig, ModelConfig

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Ring:
    """Reads and writes of a ring of `size` tokens per slot."""

    size: int
    kept_rows: torch.Tensor  # [K] flat rows that outlive the chunk
    kept_at: torch.Tensor  # [K] where, in the ring tensor flattened to [slots * size, ...]


@dataclass(frozen=True, slots=True)
class Emission:
    """Entries that this forward completes in the layers of one ratio."""

    tail: Ring
    rows: torch.Tensor  # [E, n] source rows pooled into each entry; the last row is absent
    positions: torch.Tensor  # [E] position of the entry's first own token, for RoPE
    stored_at: torch.Tensor  # [E] row in the page tensor flattened to [pages * per page, D]
    visible: torch.Tensor  # [T] entries each token may attend to
    visible_most: int  # the largest of them


@dataclass(frozen=True, slots=True)
class QueryTile:
    """Consecutive rows attended at once: equally many of each of consecutive sequences."""

    rows: slice
    sequences: slice


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """One forward's indices. T tokens of S sequences, P pages of the longest."""

    token_ids: torch.Tensor  # [T]
    positions: torch.Tensor  # [T]
    owner: torch.Tensor  # [T] sequence of each token
    slots: torch.Tensor  # [S] state slots
    block_table: torch.Tensor  # [S, P] page ids, padded with 0
    window: Ring
    window_rows: torch.Tensor  # [T, sliding_window] source rows each token sees; -1 absent
    emissions: dict[int, Emission]  # by ratio
    tiles: list[QueryTile]
    last_rows: list[int]  # [S] flat row of each sequence's last token


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Where each sequence's chunk begins, on the position axis and on the flat axis."""

    start: torch.Tensor  # [S] first position
    length: torch.Tensor  # [S]
    offset: torch.Tensor  # [S] first flat row
    slots: torch.Tensor  # [S]
    tokens: int


def lay_out(
    sequences: Sequence[ScheduledSequence], config: ModelConfig, engine: EngineConfig
) -> RaggedBatch:
    """Indices for one forward; `sequences` is not empty, and each has at least one token."""
    device = engine.device
    lengths = [len(s.token_ids) for s in sequences]
    assert min(lengths) > 0
    length = torch.tensor(lengths, device=device)
    chunks = _Chunks(
        start=torch.tensor([s.start for s in sequences], device=device),
        length=length,
        offset=length.cumsum(0) - length,
        slots=torch.tensor([s.state_slot for s in sequences], device=device),
        tokens=sum(lengths),
    )
    owner, within = _expand(length)
    positions = chunks.start[owner] + within
    deepest = max(len(s.pages) for s in sequences)
    table = [s.pages + [0] * (deepest - len(s.pages)) for s in sequences]
    block_table = torch.tensor(table, dtype=torch.long, device=device).view(len(table), deepest)
    ring = config.sliding_window + engine.draft_tokens
    back = torch.arange(config.sliding_window - 1, -1, -1, device=device)
    seen = positions.unsqueeze(1) - back  # [T, W]
    emissions = {
        ratio: _emission(ratio, config, engine, chunks, owner, positions, block_table)
        for ratio in sorted(set(config.compress_ratios) - {0})
    }
    return RaggedBatch(
        token_ids=torch.tensor([t for s in sequences for t in s.token_ids], device=device),
        positions=positions,
        owner=owner,
        slots=chunks.slots,
        block_table=block_table,
        window=_ring(ring, chunks, owner, positions),
        window_rows=_source_rows(ring, chunks, owner.unsqueeze(1), seen),
        emissions=emissions,
        tiles=list(_tiles(lengths, _row_bytes(config, emissions), engine.attention_tile_bytes)),
        last_rows=(chunks.offset + length - 1).tolist(),
    )


def _emission(
    ratio: int,
    config: ModelConfig,
    engine: EngineConfig,
    chunks: _Chunks,
    owner: torch.Tensor,
    positions: torch.Tensor,
    block_table: torch.Tensor,
) -> Emission:
    first = chunks.start // ratio  # entries finished before the chunk
    emitter, within = _expand((chunks.start + chunks.length) // ratio - first)
    entry = first[emitter] + within
    reach = 2 * ratio if ratio == CSA_RATIO else ratio  # CSA pools the previous group too
    pooled = (entry.unsqueeze(1) + 1) * ratio - reach + torch.arange(reach, device=entry.device)
    ring = reach + engine.draft_tokens
    source = _source_rows(ring, chunks, emitter.unsqueeze(1), pooled)
    per_page = config.page_entries(ratio)
    visible = (positions + 1) // ratio
    return Emission(
        tail=_ring(ring, chunks, owner, positions),
        rows=torch.where(source < 0, chunks.tokens + len(chunks.slots) * ring, source),
        positions=entry * ratio,
        stored_at=block_table[emitter, entry // per_page] * per_page + entry % per_page,
        visible=visible,
        visible_most=int(visible.max()),
    )


def _expand(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For counts [S]: the owner of each of sum(counts) items, and its number within the owner."""
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    within = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
    return owner, within


def _source_rows(
    size: int, chunks: _Chunks, owner: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Source rows of `positions` of the sequences `owner`, with rings of `size`; -1 before 0."""
    start = chunks.start[owner]
    in_chunk = chunks.offset[owner] + positions - start
    in_ring = chunks.tokens + owner * size + positions % size
    rows = torch.where(positions >= start, in_chunk, in_ring)
    return rows.masked_fill(positions < 0, -1)


def _ring(size: int, chunks: _Chunks, owner: torch.Tensor, positions: torch.Tensor) -> Ring:
    kept = positions >= (chunks.start + chunks.length - size)[owner]
    slot = chunks.slots[owner[kept]]
    return Ring(size, kept.nonzero().squeeze(1), slot * size + positions[kept] % size)


def _row_bytes(config: ModelConfig, emissions: dict[int, Emission]) -> int:
    """Workspace of one query row in its most expensive layer."""
    gathered, scored = 0, 0
    for ratio, emission in emissions.items():
        most = emission.visible_most
        if ratio == CSA_RATIO:
            gathered = max(gathered, min(most, config.index_topk))
            scored = most * (config.index_n_heads + config.index_head_dim)
        else:
            gathered = max(gathered, most)
    return FLOAT_BYTES * (2 * (config.sliding_window + gathered) * config.head_dim + scored)


def _tiles(lengths: list[int], row_bytes: int, budget_bytes: int) -> Iterator[QueryTile]:
    """Runs of equally long chunks together, within the budget; longer ones piece by piece."""
    most = max(1, budget_bytes // row_bytes)
    row = sequence = 0
    for length, group in groupby(lengths):
        left = len(list(group))
        while left:
            count = min(left, max(1, most // length))
            sequences = slice(sequence, sequence + count)
            for first in range(0, count * length, most):
                stop = min(first + most, count * length)
                yield QueryTile(slice(row + first, row + stop), sequences)
            row, sequence, left = row + count * length, sequence + count, left - count
