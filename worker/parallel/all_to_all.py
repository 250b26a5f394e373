"""Brings token rows to the experts that they chose, wherever those are, and the results home.

`worker.model.moe` calls `dispatch`, runs its own experts on what has arrived, and calls `combine`.
A row goes once to every rank that holds at least one of its experts. Any count may be zero.
"""

from dataclasses import dataclass

import torch

from worker.parallel.groups import ExpertGroup


@dataclass(frozen=True, slots=True)
class Arrivals:
    """M rows for this rank's E experts, and the way back.

    `chosen` [M, k] are ids among the own experts, E where a row's choice lies on another rank.
    """

    x: torch.Tensor  # [M, D]
    chosen: torch.Tensor  # [M, k]
    weights: torch.Tensor  # [M, k] float32
    sent_rows: torch.Tensor  # [S] the own rows that were sent, grouped by destination
    sent: list[int]  # by destination
    received: list[int]  # by source


def dispatch(
    group: ExpertGroup,
    x: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    experts: range,
) -> Arrivals:
    """Send the rows of `x` [T, D] to the ranks of their experts `chosen` [T, k], and take in what
    the others send. `experts` are this rank's. Raises PeerLost."""
    if group.size == 1:
        return Arrivals(x, chosen, weights, chosen[:0], [], [])
    visits = torch.zeros((len(x), group.size), dtype=torch.bool, device=x.device)
    visits.scatter_(1, chosen // len(experts), True)
    sent_rows = visits.t().nonzero()[:, 1]  # ascending by rank, then by row
    to_each = visits.sum(0)
    ones = [1] * group.size
    counts = torch.stack((to_each, group.exchange(to_each, ones, ones)))
    sent, received = counts.tolist()
    parcels = _pack(x[sent_rows], chosen[sent_rows], weights[sent_rows])
    parcels = group.exchange(parcels, sent, received)
    x, chosen, weights = _unpack(parcels, x, chosen.shape[1])
    chosen = chosen.long() - experts.start
    elsewhere = (chosen < 0) | (chosen >= len(experts))
    chosen = chosen.masked_fill(elsewhere, len(experts))
    return Arrivals(x, chosen, weights, sent_rows, sent, received)


def combine(
    group: ExpertGroup, arrivals: Arrivals, results: torch.Tensor, tokens: int
) -> torch.Tensor:
    """Send the `results` [M, D] float32 for the arrived rows home; returns, for each of the own
    `tokens`, the sum of what came back, added in order of rank. Raises PeerLost."""
    if group.size == 1:
        return results
    returned = group.exchange(results, arrivals.received, arrivals.sent)
    total = results.new_zeros((tokens, results.shape[1]))
    # Rank by rank: within one, no row comes twice, so that the order of additions is defined.
    start = 0
    for count in arrivals.sent:
        mine = slice(start, start + count)
        total.index_add_(0, arrivals.sent_rows[mine], returned[mine])
        start += count
    return total


def _pack(x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each row with its experts and weights as one row of bytes: one message instead of three."""
    parts = (x, chosen.int(), weights)
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)


def _unpack(
    parcels: torch.Tensor, like: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows as wide and of the same dtype as `like`, expert ids and weights."""
    ids_at = like.shape[1] * like.itemsize
    weights_at = ids_at + 4 * k
    return (
        parcels[:, :ids_at].contiguous().view(like.dtype),
        parcels[:, ids_at:weights_at].contiguous().view(torch.int32),
        parcels[:, weights_at:].contiguous().view(torch.float32),
    )
