"""Queries and key-values between their projections and attention."""

import torch

from worker.kernels.entry_pool import EntryPool
from worker.kernels.reference.norm import rms_norm
from worker.kernels.reference.pool import store_entries
from worker.kernels.reference.quantise import quantise_entry_
from worker.kernels.reference.rope import rotate_


def prepare_heads_(
    query: torch.Tensor,  # [T, H, D]
    kv: torch.Tensor,  # [T, D]
    kv_norm: torch.Tensor,  # [D]
    angles: torch.Tensor,  # [T, r]
    window: EntryPool,
    stored_at: torch.Tensor | None,  # [T] rows of the window; None writes nothing there
    *,
    eps: float,
    rounded: bool,
) -> None:
    """In place: both normalised and rotated, `kv` then rounded as `quantise_entry_` does."""
    query.copy_(rms_norm(query, None, eps))
    rotate_(query, angles)
    kv.copy_(rms_norm(kv, kv_norm, eps))
    rotate_(kv, angles)
    if rounded:
        quantise_entry_(kv, 2 * angles.shape[1])
    if stored_at is not None:
        store_entries(window, stored_at, kv)
