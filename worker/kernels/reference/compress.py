"""From projected tokens to stored cache entries: gather, pool, normalise, rotate, round, store."""

import torch

from worker.kernels.entry_pool import EntryPool
from worker.kernels.reference.norm import rms_norm
from worker.kernels.reference.pool import store_entries
from worker.kernels.reference.pooling import pool_entries
from worker.kernels.reference.quantise import quantise_entry_, quantise_index
from worker.kernels.reference.rope import rotate_


def compress_entries(
    rows: torch.Tensor,  # [T, 2, W] float32: value and score projections of a chunk's tokens
    tail: torch.Tensor,  # [slots, R, 2, W] those of earlier tokens
    slots: torch.Tensor,  # [S] slots of the sequences
    sources: torch.Tensor,  # [E, n] a row, or T + a row of the S tails, or T + S * R: absent
    bias: torch.Tensor,  # [ratio, W] added to the scores by position
    norm: torch.Tensor,  # [D]
    angles: torch.Tensor,  # [E, r] of the entries' positions
    pool: EntryPool,
    stored_at: torch.Tensor,  # [E] rows of the pool
    *,
    eps: float,
    rounding: str,  # "none", "entry" as `quantise_entry_`, "index" as `quantise_index`
) -> None:
    """Write E entries, each pooled from n tokens, the last `ratio` of them its own. If there are
    twice as many, W = 2D: the earlier half gives its first D columns, the entry's own the others.
    """
    if len(sources) == 0:  # most decode steps finish no entry
        return
    ratio, dim, count = len(bias), len(norm), sources.shape[1]
    values = rows.new_zeros(1, 1, rows.shape[2])
    absent = torch.cat((values, values - torch.inf), 1)  # [1, 2, W]: a score of no weight
    recent = tail.index_select(0, slots).flatten(0, 1)  # [S * R, 2, W]
    gathered = torch.cat((rows, recent, absent)).index_select(0, sources.flatten())
    gathered = gathered.view(*sources.shape, *rows.shape[1:])  # [E, n, 2, W]
    gathered[:, :, 1] += bias.repeat(count // ratio, 1)
    if count > ratio:
        gathered = torch.cat((gathered[:, :ratio, :, :dim], gathered[:, ratio:, :, dim:]), 1)
    entries = rms_norm(pool_entries(gathered), norm, eps)
    rotate_(entries, angles)
    if rounding == "entry":
        quantise_entry_(entries, 2 * angles.shape[1])
    elif rounding == "index":
        entries = quantise_index(entries)
    store_entries(pool, stored_at, entries)
