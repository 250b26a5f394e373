"""Lays the sequences of one forward out flat: [T] tokens, and the indices every layer shares.

All positions of all sequences lie on one token axis. Where a layer needs tokens from before the
chunk it reads a *source*: the chunk's T rows, then each sequence's ring, then one row that means
"absent". `lay_out` computes the indices once; layers only gather.

Indices are computed on the host, in numpy, whose calls cost a fraction of torch's, and then moved:
no step waits for the device before its first layer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import torch
from numpy.typing import NDArray

from worker.batch import ScheduledSequence
from worker.config import CSA_RATIO, EngineConfig, ModelConfig

FLOAT_BYTES = 4

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ring:
    """Reads and writes of a ring of `size` tokens per slot."""

    size: int
    kept_rows: torch.Tensor  # [K] flat rows that outlive the chunk
    kept_at: torch.Tensor  # [K] where: rows of all slots' rings, one after the other


@dataclass(frozen=True, slots=True)
class Emission:
    """Entries that this forward completes in the layers of one ratio."""

    tail: Ring
    rows: torch.Tensor  # [E, n] source rows pooled into each entry; the last row is absent
    positions: torch.Tensor  # [E] position of the entry's first own token, for RoPE
    stored_at: torch.Tensor  # [E] row of the page pool
    visible: torch.Tensor  # [T] entries each token may attend to
    visible_most: int  # the largest of them


@dataclass(frozen=True, slots=True)
class QueryTile:
    """Consecutive rows attended at once: equally many of each of consecutive sequences."""

    rows: slice
    sequences: slice
    positions_stop: int  # one beyond the farthest token's


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """One forward's indices. T tokens of S sequences, P pages of the longest."""

    token_ids: torch.Tensor  # [T]
    positions: torch.Tensor  # [T]
    owner: torch.Tensor  # [T] sequence of each token
    slots: torch.Tensor  # [S] state slots
    block_table: torch.Tensor  # [S, P] page ids, padded with 0
    window: Ring
    overwrites_unseen: bool  # no window row that a chunk overwrites is seen by its own tokens
    window_rows: torch.Tensor  # [T, sliding_window] rows each token sees, -1 absent: of all slots'
    # rings if `overwrites_unseen`, for its key-value is there before it looks; else source rows
    emissions: dict[int, Emission]  # by ratio
    tiles: list[QueryTile]
    last_rows: list[int]  # [S] flat row of each sequence's last token


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Where each sequence's chunk begins, on the position axis and on the flat axis; and whose
    each token is."""

    start: Indices  # [S] first position
    length: Indices  # [S]
    known: Indices  # [S] positions whose entries are in the pages already
    offset: Indices  # [S] first flat row
    slots: Indices  # [S]
    owner: Indices  # [T]
    positions: Indices  # [T]


def lay_out(
    sequences: Sequence[ScheduledSequence], config: ModelConfig, engine: EngineConfig
) -> RaggedBatch:
    """Indices for one forward; `sequences` is not empty, and each has at least one token."""
    lengths = [len(s.token_ids) for s in sequences]
    assert min(lengths) > 0
    chunks = _chunks(sequences, lengths)
    table = _block_table(sequences)
    ring = config.sliding_window + engine.draft_tokens
    overwrites_unseen = max(lengths) <= ring - config.sliding_window + 1
    if overwrites_unseen:
        window_rows = _ring_rows(ring, chunks, config.sliding_window)
    else:
        window_rows = _source_rows(
            ring, chunks, chunks.owner, chunks.positions, config.sliding_window
        )

    def moved(indices: Indices) -> torch.Tensor:
        return torch.from_numpy(indices).to(engine.device)

    emissions = {
        ratio: _emission(ratio, config, engine, chunks, table, moved)
        for ratio in sorted(set(config.compress_ratios) - {0})
    }
    token_ids = np.fromiter(
        chain.from_iterable(s.token_ids for s in sequences), np.int64, len(chunks.owner)
    )
    return RaggedBatch(
        token_ids=moved(token_ids),
        positions=moved(chunks.positions),
        owner=moved(chunks.owner),
        slots=moved(chunks.slots),
        block_table=moved(table),
        window=_ring(ring, chunks, moved),
        overwrites_unseen=overwrites_unseen,
        window_rows=moved(window_rows),
        emissions=emissions,
        tiles=list(_tiles(chunks, _row_bytes(config, emissions), engine.attention_tile_bytes)),
        last_rows=(chunks.offset + chunks.length - 1).tolist(),
    )


def _chunks(sequences: Sequence[ScheduledSequence], lengths: list[int]) -> _Chunks:
    start = np.array([s.start for s in sequences])
    length = np.array(lengths)
    owner, within = _expand(length)
    return _Chunks(
        start=start,
        length=length,
        known=np.array([s.known_tokens for s in sequences]),
        offset=length.cumsum() - length,
        slots=np.array([s.state_slot for s in sequences]),
        owner=owner,
        positions=start[owner] + within,
    )


def _block_table(sequences: Sequence[ScheduledSequence]) -> Indices:
    """[S, P] page ids, padded with 0."""
    counts = np.array([len(s.pages) for s in sequences])
    table = np.zeros((len(counts), counts.max()), np.int64)
    pages = chain.from_iterable(s.pages for s in sequences)
    table[np.arange(table.shape[1]) < counts[:, None]] = np.fromiter(
        pages, np.int64, int(counts.sum())
    )
    return table


def _emission(
    ratio: int,
    config: ModelConfig,
    engine: EngineConfig,
    chunks: _Chunks,
    table: Indices,
    moved: Callable[[Indices], torch.Tensor],
) -> Emission:
    first = np.maximum(chunks.start, chunks.known) // ratio  # entries finished before the chunk
    count = (chunks.start + chunks.length) // ratio - first
    emitter, within = _expand(count.clip(min=0))
    entry = first[emitter] + within
    reach = 2 * ratio if ratio == CSA_RATIO else ratio  # CSA pools the previous group too
    ring = reach + engine.draft_tokens
    source = _source_rows(ring, chunks, emitter, (entry + 1) * ratio - 1, reach)
    absent = len(chunks.owner) + len(chunks.slots) * ring
    per_page = config.page_entries(ratio)
    visible = (chunks.positions + 1) // ratio
    return Emission(
        tail=_ring(ring, chunks, moved),
        rows=moved(np.where(source < 0, absent, source)),
        positions=moved(entry * ratio),
        stored_at=moved(table[emitter, entry // per_page] * per_page + entry % per_page),
        visible=moved(visible),
        visible_most=int(visible.max()),
    )


def _expand(counts: Indices) -> tuple[Indices, Indices]:
    """For counts [S]: the owner of each of sum(counts) items, and its number within the owner."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (counts.cumsum() - counts)[owner]


def _source_rows(size: int, chunks: _Chunks, owner: Indices, last: Indices, count: int) -> Indices:
    """Source rows [N, count] of the `count` positions up to `last` [N] of the sequences `owner`
    [N], with rings of at least as many rows, `size`; -1 before 0."""
    back = np.arange(count - 1, -1, -1)
    at = last % size
    rows = (len(chunks.owner) + owner * size + at)[:, None] - back  # in the ring
    rows += size * (back > at[:, None])
    within = last - chunks.start[owner]
    recent = slice(max(0, count - 1 - int(within.max(initial=-1))), None)  # of a decode, one column
    in_chunk = (chunks.offset[owner] + within)[:, None] - back[recent]
    np.copyto(rows[:, recent], in_chunk, where=back[recent] <= within[:, None])
    np.copyto(rows, -1, where=back > last[:, None])
    return rows


def _ring_rows(size: int, chunks: _Chunks, count: int) -> Indices:
    """Rows [T, count] of all slots' rings that hold the `count` positions up to each token's; -1
    before 0."""
    seen = chunks.positions[:, None] - np.arange(count - 1, -1, -1)
    return np.where(seen < 0, -1, chunks.slots[chunks.owner][:, None] * size + seen % size)


def _ring(size: int, chunks: _Chunks, moved: Callable[[Indices], torch.Tensor]) -> Ring:
    outlives = chunks.positions >= (chunks.start + chunks.length - size)[chunks.owner]
    kept = outlives.nonzero()[0]
    at = chunks.slots[chunks.owner[kept]] * size + chunks.positions[kept] % size
    return Ring(size, moved(kept), moved(at))


def _row_bytes(config: ModelConfig, emissions: dict[int, Emission]) -> int:
    """Workspace of one query row in its most expensive layer."""
    gathered, scored = 0, 0
    for ratio, emission in emissions.items():
        most = emission.visible_most
        if ratio == CSA_RATIO:
            gathered = max(gathered, min(most, config.index_topk))
            scored = 3 * most  # scores, a copy without what is out of sight, and their order
        else:
            gathered = max(gathered, most)
    return FLOAT_BYTES * (2 * (config.sliding_window + gathered) * config.head_dim + scored)


def _tiles(chunks: _Chunks, row_bytes: int, budget_bytes: int) -> Iterator[QueryTile]:
    """Runs of equally long chunks together, within the budget; longer ones piece by piece."""
    most = max(1, budget_bytes // row_bytes)
    row = sequence = 0
    for length, group in groupby(chunks.length.tolist()):
        left = len(list(group))
        while left:
            count = min(left, max(1, most // length))
            sequences = slice(sequence, sequence + count)
            for first in range(0, count * length, most):
                rows = slice(row + first, row + min(first + most, count * length))
                yield QueryTile(rows, sequences, int(chunks.positions[rows].max()) + 1)
            row, sequence, left = row + count * length, sequence + count, left - count
