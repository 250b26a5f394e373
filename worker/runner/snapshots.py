"""States kept at page boundaries, in a fraction of a state slot. Used by `kv_tensors`.

At a page boundary every entry is finished. Of a slot, only the window rings and, where entries
overlap (CSA), the first half of the last tokens' projections will ever be read again.
"""

import math
from collections.abc import Iterable, Sequence

import torch

from worker.batch import StateCopy
from worker.model.layer_cache import EntryCache, LayerCache


class Snapshots:
    """`count` snapshots of the states that `layers` hold."""

    def __init__(self, count: int, layers: Sequence[LayerCache]) -> None:
        compressors = [c for layer in layers for c in (layer.entries, layer.index) if c is not None]
        self._windows = [(w, w.new_zeros((count, *w.shape[1:]))) for w in _windows(layers)]
        self._overlaps = [
            (cache, cache.tail.new_zeros((count, cache.overlap_tokens, 2, cache.overlap_width)))
            for cache in compressors
            if cache.overlap_tokens
        ]
        kept = [t for _, t in self._windows] + [t for _, t in self._overlaps]
        self.bytes_each = sum(math.prod(t.shape[1:]) * t.itemsize for t in kept)

    def keep(self, copy: StateCopy) -> None:
        """Fill a snapshot. The slot may be ahead by as many tokens as its rings have spare rows."""
        for window, kept in self._windows:
            kept[copy.snapshot] = window[copy.slot]
        for cache, kept in self._overlaps:
            rows = _overlap_rows(cache, copy.token_count)
            kept[copy.snapshot] = cache.tail[copy.slot, rows, :, : cache.overlap_width]

    def restore(self, copy: StateCopy) -> None:
        """Fill a slot; tail rows that no entry will read again are left as they are."""
        for window, kept in self._windows:
            window[copy.slot] = kept[copy.snapshot]
        for cache, kept in self._overlaps:
            rows = _overlap_rows(cache, copy.token_count)
            cache.tail[copy.slot, rows, :, : cache.overlap_width] = kept[copy.snapshot]


def _windows(layers: Sequence[LayerCache]) -> Iterable[torch.Tensor]:
    return (layer.window.data for layer in layers)


def _overlap_rows(cache: EntryCache, token_count: int) -> list[int]:
    """Where the ring holds the last tokens before position `token_count`."""
    ring = cache.tail.shape[1]
    return [t % ring for t in range(token_count - cache.overlap_tokens, token_count)]
