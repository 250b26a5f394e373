"""The lightning indexer: scores of compressed entries, and the best of them.

Scores are score_j = sum_h w_h relu(q_h . k_j), in float32.
"""

import torch

from worker.kernels.entry_pool import EntryPool
from worker.kernels.reference.pool import load_blocks

WORKSPACE_BYTES = 32 << 20  # of keys and single heads' scores


def index_scores(
    query: torch.Tensor,  # [B, R, H, D] R rows of each of B sequences
    weights: torch.Tensor,  # [B, R, H]
    keys: EntryPool,  # blocks are pages
    block_table: torch.Tensor,  # [B, P] page ids, enough for `entries`
    entries: int,
) -> torch.Tensor:
    """Scores [B, R, entries] of the first `entries` keys of each sequence, which are read once; the
    scores of single heads exist for a few pages at a time."""
    b, r, heads, dim = query.shape
    rows, weights = query.flatten(1, 2).float(), weights.reshape(b * r, 1, heads).float()
    pages, per_page = -(-entries // keys.block_entries), keys.block_entries
    page_bytes = 4 * b * (r * heads + dim) * per_page
    step = max(1, WORKSPACE_BYTES // page_bytes)
    scores = rows.new_empty(b, r, pages * per_page)
    for first in range(0, pages, step):
        table = block_table[:, first : min(first + step, pages)]
        seen = load_blocks(keys, table.flatten(), torch.float32).view(b, -1, dim).float()
        by_head = (rows @ seen.transpose(1, 2)).relu_().view(b * r, heads, -1)
        part = slice(first * per_page, first * per_page + seen.shape[1])
        scores[..., part] = (weights @ by_head).view(b, r, -1)
    return scores[..., :entries]


def select_top(scores: torch.Tensor, visible: torch.Tensor, k: int) -> torch.Tensor:
    """Indices [T, min(k, N)] of the k highest scores [T, N] among the first `visible` [T] of each
    row, ascending, padded with -1. On a tie the lowest index wins; NaN is above every number, and
    minus infinity is never selected."""
    entries = scores.shape[1]
    k = min(k, entries)
    index = torch.arange(entries, device=scores.device)
    if k == 0:
        return index.expand(len(scores), 0)
    scores = scores.masked_fill(index >= visible.unsqueeze(1), float("-inf"))
    best, chosen = scores.topk(k, dim=-1, sorted=False)
    edge = best.amin(-1, keepdim=True)
    left_out = (scores == edge).sum(-1) > (best == edge).sum(-1)
    # topk takes any of those at the edge; there are more of them in next to no row.
    if bool((left_out & (edge.squeeze(1) > float("-inf"))).any()):
        return _lowest_of_equals(scores, edge, k)
    return _padded(chosen.masked_fill(best == float("-inf"), entries).sort(-1).values, entries)


def index_top(
    query: torch.Tensor,  # [B, R, H, D] R rows of each of B sequences
    weights: torch.Tensor,  # [B, R, H]
    keys: EntryPool,  # blocks are pages
    block_table: torch.Tensor,  # [B, P] page ids, enough for `entries`
    visible: torch.Tensor,  # [B * R] so many keys each row sees
    entries: int,  # the most of them
    k: int,
) -> torch.Tensor:
    """Indices [B * R, min(k, entries)] of the k keys of each row with the highest scores, as
    `select_top` gives them."""
    scores = index_scores(query, weights, keys, block_table, entries)
    return select_top(scores.flatten(0, 1), visible, k)


def _lowest_of_equals(scores: torch.Tensor, edge: torch.Tensor, k: int) -> torch.Tensor:
    """The k highest, where as many of those that equal `edge` [T, 1] as there is room for are
    taken from the lowest index up."""
    entries = scores.shape[1]
    above = scores > edge
    level = (scores == edge) & (scores > float("-inf"))
    room = k - above.sum(-1, keepdim=True)
    chosen = above | (level & (level.cumsum(-1) <= room))
    # Unchosen entries sort behind every index.
    ranked = torch.where(chosen, torch.arange(entries, device=scores.device), entries)
    return _padded(ranked.topk(k, dim=-1, largest=False, sorted=True).values, entries)


def _padded(ascending: torch.Tensor, entries: int) -> torch.Tensor:
    return ascending.masked_fill(ascending == entries, -1)
