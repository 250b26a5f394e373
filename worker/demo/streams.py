"""Hyper-connections, differentiable: the streams' mix before and after a sublayer.

The formulas are those of `worker.kernels.reference.hyper_connection`; the normalisation comes after
the product, which is the same number and one pass over the streams less.
"""

from collections.abc import Mapping

import torch

from worker.config import ModelConfig

Weights = Mapping[str, torch.Tensor]


def mix_in(
    weights: Weights, prefix: str, config: ModelConfig, streams: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sublayer's input [B, T, D] from streams [B, T, n, D], and the weights `mix_out` needs:
    post [B, T, n] and comb [B, T, n, n]. `prefix` names the tensors fn, base and scale."""
    n, eps = config.hc_mult, config.hc_eps
    fn, base, scale = (weights[prefix + name] for name in ("fn", "base", "scale"))
    mixes = _projected(streams, fn, config.rms_norm_eps)
    pre = torch.sigmoid(mixes[..., :n] * scale[0] + base[:n]) + eps
    post = 2 * torch.sigmoid(mixes[..., n : 2 * n] * scale[1] + base[n : 2 * n])
    logits = torch.unflatten(mixes[..., 2 * n :] * scale[2] + base[2 * n :], -1, (n, n))
    comb = doubly_stochastic(logits.softmax(-1) + eps, config.hc_sinkhorn_iters, eps)
    return _weighted(pre, streams), post, comb


def mix_out(
    streams: torch.Tensor, y: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    """The next streams [B, T, n, D] from the sublayer's output y [B, T, D]: stream k is
    post_k y + sum_j comb_jk streams_j."""
    return torch.matmul(comb.transpose(-1, -2), streams) + post.unsqueeze(-1) * y.unsqueeze(-2)


def collapse(
    weights: Weights, prefix: str, config: ModelConfig, streams: torch.Tensor
) -> torch.Tensor:
    """The streams [R, n, D] as one [R, D], before the last norm."""
    fn, base, scale = (weights[f"{prefix}hc_head_{name}"] for name in ("fn", "base", "scale"))
    mixes = _projected(streams, fn, config.rms_norm_eps)
    return _weighted(torch.sigmoid(mixes * scale + base) + config.hc_eps, streams)


def doubly_stochastic(matrices: torch.Tensor, iterations: int, eps: float) -> torch.Tensor:
    """Columns, then rows and columns in turn, over their sums plus eps (Sinkhorn)."""
    matrices = matrices / (matrices.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        matrices = matrices / (matrices.sum(-1, keepdim=True) + eps)
        matrices = matrices / (matrices.sum(-2, keepdim=True) + eps)
    return matrices


def _projected(streams: torch.Tensor, fn: torch.Tensor, norm_eps: float) -> torch.Tensor:
    flat = streams.flatten(-2)
    root = torch.rsqrt(flat.square().mean(-1, keepdim=True) + norm_eps)
    return (flat @ fn.T) * root


def _weighted(weights: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    return torch.matmul(weights.unsqueeze(-2), streams).squeeze(-2)
