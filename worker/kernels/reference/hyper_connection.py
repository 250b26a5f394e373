"""Manifold-constrained hyper-connections: n residual streams, mixed by doubly stochastic matrices.

With z = (flat X over its root mean square) fn^T, split into n + n + n*n columns:
pre = sigmoid(z s0 + b) + eps; post = 2 sigmoid(z s1 + b); comb = Sinkhorn(softmax(z s2 + b) + eps).
"""

from functools import cache

import torch

from worker.kernels.reference.norm import rms_norm


def hyper_connection_in(
    streams: torch.Tensor,  # [T, n, D]
    fn: torch.Tensor,  # [n*(n+2), n*D] float32
    base: torch.Tensor,  # [n*(n+2)] float32
    scale: torch.Tensor,  # [3] float32
    *,
    iterations: int,
    eps: float,
    norm_eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sublayer's input [T, D] in the streams' dtype, with the float32 weights that
    `hyper_connection_out` needs: post [T, n] and comb [T, n, n]."""
    n = streams.shape[1]
    flat = streams.flatten(1).float()
    mixes = rms_norm(flat, None, norm_eps) @ fn.T  # [T, n*(n+2)]
    pre = torch.sigmoid(mixes[:, :n] * scale[0] + base[:n]) + eps
    post = 2 * torch.sigmoid(mixes[:, n : 2 * n] * scale[1] + base[n : 2 * n])
    logits = mixes[:, 2 * n :] * scale[2] + base[2 * n :]
    comb = _sinkhorn(logits.view(-1, n, n).softmax(-1) + eps, iterations, eps)
    collapsed = torch.bmm(pre.unsqueeze(1), flat.view_as(streams)).squeeze(1)
    return collapsed.to(streams.dtype), post, comb


def hyper_connection_out(
    y: torch.Tensor,  # [T, D] the sublayer's output
    streams: torch.Tensor,  # [T, n, D]
    post: torch.Tensor,  # [T, n]
    comb: torch.Tensor,  # [T, n, n]
) -> torch.Tensor:
    """The next streams [T, n, D]: stream k is post_k y + sum_j comb_jk streams_j."""
    mixed = torch.bmm(comb.transpose(1, 2), streams.float())
    return (mixed + post.unsqueeze(-1) * y.float().unsqueeze(1)).to(streams.dtype)


def hyper_connection_next(
    y: torch.Tensor,  # [T, D] a sublayer's output
    streams: torch.Tensor,  # [T, n, D] before it
    post: torch.Tensor,  # [T, n]
    comb: torch.Tensor,  # [T, n, n]
    fn: torch.Tensor,  # [n*(n+2), n*D] of the next sublayer, as the two below
    base: torch.Tensor,  # [n*(n+2)]
    scale: torch.Tensor,  # [3]
    *,
    iterations: int,
    eps: float,
    norm_eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`hyper_connection_out` of one sublayer and `hyper_connection_in` of the next: the streams
    [T, n, D] between them, then what the latter gives."""
    streams = hyper_connection_out(y, streams, post, comb)
    opened = hyper_connection_in(
        streams, fn, base, scale, iterations=iterations, eps=eps, norm_eps=norm_eps
    )
    return streams, *opened


def hyper_connection_head(
    streams: torch.Tensor,  # [T, n, D]
    fn: torch.Tensor,  # [n, n*D]
    base: torch.Tensor,  # [n]
    scale: torch.Tensor,  # [1]
    *,
    eps: float,
    norm_eps: float,
) -> torch.Tensor:
    """The streams collapsed for the output head, [T, D]."""
    flat = streams.flatten(1).float()
    mixes = rms_norm(flat, None, norm_eps) @ fn.T
    pre = torch.sigmoid(mixes * scale + base) + eps
    return torch.bmm(pre.unsqueeze(1), flat.view_as(streams)).squeeze(1).to(streams.dtype)


def _sinkhorn(matrices: torch.Tensor, iterations: int, eps: float) -> torch.Tensor:
    """Divide columns, then rows and columns in turn, by their sums plus eps: [T, n, n].

    Sums are products of the flattened matrices with a constant 0/1 matrix, which also spreads them
    back over the entries: half the operations of sum and broadcast, and they are many and tiny.
    """
    same_row, same_column = _line_masks(matrices.shape[-1], matrices.device)
    flat = matrices.flatten(1)  # [T, n*n]
    floor, sums = torch.full_like(flat, eps), torch.empty_like(flat)
    flat = flat / torch.addmm(floor, flat, same_column, out=sums)
    for _ in range(iterations - 1):
        flat.div_(torch.addmm(floor, flat, same_row, out=sums))
        flat.div_(torch.addmm(floor, flat, same_column, out=sums))
    return flat.view_as(matrices)


@cache
def _line_masks(n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """[n*n, n*n] float32: one where two entries of a flattened matrix share a row, or a column."""
    cell = torch.arange(n * n, device=device)
    same_row = cell.unsqueeze(1) // n == cell // n
    same_column = cell.unsqueeze(1) % n == cell % n
    return same_row.float(), same_column.float()
