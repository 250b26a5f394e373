"""The entries that each row attends to: scores of its index keys, and the best of them.

Scores exist for so many keys at a time as fit into a workspace of constant size; the best so far
are carried from one such segment to the next, ahead of its own: on a tie the lowest index wins.
Sizes follow from shapes alone, and nothing waits for the device.
"""

from collections.abc import Iterator

import torch

from worker.kernels.entry_pool import EntryPool
from worker.kernels.triton.index_scores import ALIGNED, score_keys
from worker.kernels.triton.select_top import TILES, keep_best, keep_best_of_tiles, tiles_of

SEGMENT = TILES[-1]  # keys: segments are multiples of it, but for the last
WORKSPACE_SCORES = 16 << 20  # 64 MiB; and 32 MiB of candidates at k = 512
MOST_ROWS = WORKSPACE_SCORES // SEGMENT  # that are selected for at once


def index_top(
    query: torch.Tensor,  # [B, R, H, D] R rows of each of B sequences
    weights: torch.Tensor,  # [B, R, H]
    keys: EntryPool,  # blocks are pages
    block_table: torch.Tensor,  # [B, P] page ids, enough for `entries`
    visible: torch.Tensor,  # [B * R] so many keys each row sees
    entries: int,  # the most of them
    k: int,
) -> torch.Tensor:
    """Indices [B * R, min(k, entries)] of the k keys of each row with the highest scores, in
    ascending order, padded with -1. On a tie the lowest index wins."""
    sequences, rows = query.shape[:2]
    k = min(k, entries)
    best = torch.empty(sequences, rows, k, dtype=torch.int64, device=query.device)
    if best.numel() == 0:
        return best.flatten(0, 1)
    visible = visible.view(sequences, rows)
    for block in row_blocks(sequences, rows, MOST_ROWS):
        count = visible[block].numel()
        segment = WORKSPACE_SCORES // count // SEGMENT * SEGMENT
        keep_best_of_segments(
            query[block], weights[block], keys, block_table[block[0]], visible[block],
            entries, segment, best[block].flatten(0, 1),
        )  # fmt: skip
    return best.flatten(0, 1)


def row_blocks(sequences: int, rows: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Whole sequences, or parts of one, of `most` rows at most."""
    together = max(1, most // rows)
    for sequence in range(0, sequences, together):
        for row in range(0, rows, most):
            yield slice(sequence, sequence + together), slice(row, row + most)


def keep_best_of_segments(
    query: torch.Tensor,
    weights: torch.Tensor,
    keys: EntryPool,
    block_table: torch.Tensor,
    visible: torch.Tensor,
    entries: int,
    segment: int,
    best: torch.Tensor,
) -> None:
    """`index_top` of all rows at once, `segment` keys at a time, to `best` [B * R, k]."""
    rows, k = best.shape
    segment = min(segment, -(-entries // ALIGNED) * ALIGNED)
    workspace = torch.empty(*visible.shape, segment, dtype=torch.float32, device=query.device)
    seen = visible.flatten()
    if entries <= segment:
        scores = workspace[..., :entries]
        score_keys(query, weights, keys, block_table, visible, 0, scores)
        keep_best(scores.flatten(0, 1), seen, best)
        return
    # The first k candidates are carried; what is behind them is of one segment. They are carried to
    # the other of two lists: programs read what they choose again while they write.
    size = (2, rows, (1 + tiles_of(segment)) * k)
    numbers = torch.empty(size, dtype=torch.int32, device=query.device)
    ranks = torch.empty_like(numbers)
    for turn, first in enumerate(range(0, entries, segment)):
        scores = workspace[..., : entries - first]
        score_keys(query, weights, keys, block_table, visible, first, scores)
        scores = scores.flatten(0, 1)
        stop = (1 + tiles_of(scores.shape[1])) * k
        here, there = turn % 2, 1 - turn % 2
        keep_best_of_tiles(scores, seen, first, k, numbers[here, :, k:stop], ranks[here, :, k:stop])
        joined = slice(0 if first else k, stop)
        if first + segment < entries:
            kept, kept_ranks = numbers[there, :, :k], ranks[there, :, :k]
            keep_best(ranks[here, :, joined], numbers[here, :, joined], kept, kept_ranks)
        else:
            keep_best(ranks[here, :, joined], numbers[here, :, joined], best)
