"""Where everything lies in a batch: documents packed into rows, and who may see what.

`worker.demo.batches` packs, on the host; `lay_out` makes the tensors of a forward from it. A
document begins at a multiple of four, so that CSA's groups of four tokens are groups of the row,
and positions, windows and entries begin anew with it: to each document it is as if alone.
"""

from dataclasses import dataclass

import torch

from worker.config import CSA_RATIO, ModelConfig
from worker.model.rope import frequencies

PADDING = -1  # the document of rows that belong to none
BLOCK = 256  # rows whose attention is one call


@dataclass(frozen=True, slots=True)
class Angles:
    """Cosines and sines of each pair of channels, [B, ..., r] float32."""

    cos: torch.Tensor
    sin: torch.Tensor

    def over_heads(self) -> "Angles":
        """The same for every head: [B, T, 1, r]."""
        return Angles(self.cos.unsqueeze(2), self.sin.unsqueeze(2))

    def back(self) -> "Angles":
        """What undoes it."""
        return Angles(self.cos, -self.sin)


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one ratio. `first` [B, E]: has none before it in its document. `rows`
    [B, E, ratio]: the tokens it pools; not used where these are the row's own groups."""

    first: torch.Tensor
    rows: torch.Tensor
    angles: Angles


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """Queries at `rows` see keys of `tokens`, the first `entries` entries, and the sink, in this
    order, where `mask` [B, 1, rows, K] bfloat16 is zero, and not where it is minus infinity."""

    rows: slice
    tokens: slice
    entries: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a forward over [B, T] needs to know beside weights. `slots` index the batch's
    candidate rows. By ratio: `blocks` of queries with the keys that any of them may see, and
    `visible` entries [B, T, E]. `hashed` by layer [B * T, k]."""

    slots: torch.Tensor
    positions: torch.Tensor
    plain: Angles
    extended: Angles
    entries: dict[int, Entries]
    blocks: dict[int, list[QueryBlock]]
    visible: dict[int, torch.Tensor]
    hashed: torch.Tensor


def lay_out(
    config: ModelConfig,
    slots: torch.Tensor,  # [B, T] candidate rows
    documents: torch.Tensor,  # [B, T] numbers that differ within a row, PADDING for none
    hashed: torch.Tensor,  # [hash layers, B * T, k]
) -> Layout:
    """Lay rows of whole documents out, on the tensors' device; T must be a multiple of four, and
    each document begin at one."""
    row = torch.arange(slots.shape[1], device=slots.device)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    start = torch.where(begins, row, 0).cummax(1).values  # [B, T]
    positions = row - start
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    back = row.unsqueeze(1) - row
    window = same & (back >= 0) & (back < config.sliding_window)  # [B, T, T]
    ratios = sorted(set(config.compress_ratios) - {0})
    entries: dict[int, Entries] = {}
    visible: dict[int, torch.Tensor] = {}
    for ratio in ratios:
        entries[ratio], visible[ratio] = _entries(config, documents, start, ratio)
    blocks = {0: _blocks(config, window, window[..., :0], 1)}
    blocks |= {ratio: _blocks(config, window, visible[ratio], ratio) for ratio in ratios}
    plain, extended = (_angles(config, positions, compressed=c) for c in (False, True))
    return Layout(slots, positions, plain, extended, entries, blocks, visible, hashed)


def _blocks(
    config: ModelConfig, window: torch.Tensor, visible: torch.Tensor, ratio: int
) -> list[QueryBlock]:
    """What rows may see cut into blocks, each without the keys that are too old, or yet to come,
    for all of its rows."""
    found: list[QueryBlock] = []
    width = window.shape[1]
    for begin in range(0, width, BLOCK):
        rows = slice(begin, min(begin + BLOCK, width))
        tokens = slice(max(0, begin + 1 - config.sliding_window), rows.stop)
        whole = min(rows.stop // ratio, visible.shape[2])
        sink = window.new_ones(*window[:, rows, :1].shape)
        seen = torch.cat((window[:, rows, tokens], visible[:, rows, :whole], sink), 2)
        mask = torch.zeros(seen.shape, dtype=torch.bfloat16, device=seen.device)
        mask = mask.masked_fill_(~seen, float("-inf")).unsqueeze(1)
        found.append(QueryBlock(rows, tokens, whole, mask))
    return found


def _entries(
    config: ModelConfig, documents: torch.Tensor, start: torch.Tensor, ratio: int
) -> tuple[Entries, torch.Tensor]:
    """The entries of one ratio and who sees them [B, T, E]: E is the most a row can finish."""
    tokens = documents.shape[1]
    row = torch.arange(tokens, device=documents.device)
    position = row - start
    if ratio == CSA_RATIO:
        begin = row[::ratio].expand(len(documents), -1)
    else:  # those that do finish, in their order; the rest of the places stays empty
        whole = (position % ratio == 0) & _finishes(documents, row, ratio)
        order = torch.where(whole, row, tokens).sort(1).values
        begin = order[:, : tokens // ratio]
    inside = begin.clamp(max=tokens - ratio)
    whole = (begin < tokens) & _finishes(documents, row, ratio).gather(1, inside)
    document = documents.gather(1, inside)
    end = torch.where(whole, begin + ratio - 1, tokens)
    visible = (end.unsqueeze(1) <= row.view(1, -1, 1)) & (
        documents.unsqueeze(2) == document.unsqueeze(1)
    )
    at = position.gather(1, inside)
    rows = inside.unsqueeze(2) + torch.arange(ratio, device=row.device)
    return Entries(at == 0, rows, _angles(config, at, compressed=True)), visible


def _finishes(documents: torch.Tensor, row: torch.Tensor, ratio: int) -> torch.Tensor:
    """Whether the `ratio` tokens from each row on belong to one document, [B, T]."""
    last = row + ratio - 1
    there = documents[:, last.clamp(max=len(row) - 1)]
    return (documents == there) & (last < len(row)) & (documents != PADDING)


def _angles(config: ModelConfig, positions: torch.Tensor, *, compressed: bool) -> Angles:
    frequency = frequencies(config, compressed, positions.device)
    radians = positions.float().unsqueeze(-1) * frequency
    return Angles(radians.cos(), radians.sin())
