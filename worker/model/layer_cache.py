"""What a layer remembers between forwards. Allocated by `worker.runner.kv_tensors`.

Two kinds of tensors: *pages*, indexed by the scheduler's page ids and shared by every sequence
whose prefix they hold, and *slots*, one sequence's recent state. Both kinds of a sequence together
are its whole state. Rings have room for a forward's guesses beyond what is ever read: a failed
guess has overwritten nothing, and will be.
"""

from dataclasses import dataclass

import torch

from worker.kernels.entry_pool import EntryPool


@dataclass(frozen=True, slots=True)
class EntryCache:
    """One compressor's memory.

    `pages`: finished entries, a block per page; the extra last page stays zero, and is what row -1
    reads. `tail` [slots, R, 2, W] float32: value and score projections of the last R tokens,
    without their positions' bias, a ring at position mod R, where R spans every token an unfinished
    entry can need and `draft_tokens` more. `overlap_tokens`: so many tokens before an entry's own
    are pooled into it too (CSA), by the first `overlap_width` channels of their projections.
    """

    pages: EntryPool
    tail: torch.Tensor
    overlap_tokens: int

    @property
    def overlap_width(self) -> int:
        """Half of W where entries overlap."""
        return self.tail.shape[3] // 2


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's memory. `window`: key-values of the last tokens, a block per slot, each a ring at
    position mod R = sliding_window + draft_tokens; the extra last block stays zero, as that of
    pages. `entries` in compressed layers, `index` beside it in CSA layers."""

    window: EntryPool
    entries: EntryCache | None
    index: EntryCache | None
