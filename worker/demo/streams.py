"""Hyper-connections, differentiable: the streams' mix before and after a sublayer.

The formulas are those of `worker.kernels.reference.hyper_connection`; the normalisation comes after
the product, which is the same number and one pass over the streams less. Sums over four streams are
spelled out, so that a compiler makes one pass of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn.functional import rms_norm

from worker.config import ModelConfig
from worker.demo.fused import fused

Weights = Mapping[str, torch.Tensor]
Limits = tuple[float, float, int]  # the norm's eps, the mixes' eps, Sinkhorn's iterations


class Mix(NamedTuple):
    """How a sublayer's output is mixed in: post [N, n] and comb [n, n, N]."""

    post: torch.Tensor
    comb: torch.Tensor


def mix_in(
    weights: Weights,
    prefix: str,
    gain: torch.Tensor,
    config: ModelConfig,
    streams: torch.Tensor,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, Mix]:
    """A sublayer's input from streams [N, n, D]: their mix, normalised with `gain` [D], in `dtype`
    [N, D]; and how its output is to be mixed in. `prefix` names the tensors fn, base and scale."""
    x, post, comb = _mix_in(streams, *_read(weights, prefix), gain, _limits(config), dtype)
    return x, Mix(post, comb)


def mix_on(
    weights: Weights,
    prefix: str,
    gain: torch.Tensor,
    config: ModelConfig,
    streams: torch.Tensor,
    y: torch.Tensor,
    mix: Mix,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, Mix]:
    """`mix_out` and the next sublayer's `mix_in` in one pass: streams, then what that returns."""
    before, read = (streams, y, mix.post, mix.comb), _read(weights, prefix)
    streams, x, post, comb = _mix_on(*before, *read, gain, _limits(config), dtype)
    return streams, x, Mix(post, comb)


def mix_out(streams: torch.Tensor, y: torch.Tensor, mix: Mix) -> torch.Tensor:
    """The next streams [N, n, D] from the sublayer's output y [N, D]: stream k is
    post_k y + sum_j comb_jk streams_j."""
    return _mix_out(streams, y, mix.post, mix.comb)


def collapse(
    weights: Weights, prefix: str, config: ModelConfig, streams: torch.Tensor
) -> torch.Tensor:
    """The streams [R, n, D] as one [R, D], before the last norm."""
    fn, base, scale = (weights[f"{prefix}hc_head_{name}"] for name in ("fn", "base", "scale"))
    mixes = _projected(streams, fn, config.rms_norm_eps)
    return _weighted(torch.sigmoid(mixes * scale + base) + config.hc_eps, streams)


def doubly_stochastic(x: torch.Tensor, iterations: int, eps: float) -> torch.Tensor:
    """[row, column, N]: columns, then rows and columns in turn, over their sums plus eps
    (Sinkhorn). Tokens come last: sums over rows of four are slow, sums of long rows are not."""
    x = x / (x.sum(0, keepdim=True) + eps)
    for _ in range(iterations - 1):
        x = x / (x.sum(1, keepdim=True) + eps)
        x = x / (x.sum(0, keepdim=True) + eps)
    return x


def _read(weights: Weights, prefix: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return weights[f"{prefix}fn"], weights[f"{prefix}base"], weights[f"{prefix}scale"]


def _limits(config: ModelConfig) -> Limits:
    return config.rms_norm_eps, config.hc_eps, config.hc_sinkhorn_iters


@fused
def _mix_in(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    gain: torch.Tensor,
    limits: Limits,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _mixed_in(streams, fn, base, scale, gain, limits, dtype)


@fused
def _mix_on(
    streams: torch.Tensor,
    y: torch.Tensor,
    post: torch.Tensor,
    comb: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    gain: torch.Tensor,
    limits: Limits,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    streams = _mixed_out(streams, y, post, comb)
    return streams, *_mixed_in(streams, fn, base, scale, gain, limits, dtype)


@fused
def _mix_out(
    streams: torch.Tensor, y: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    return _mixed_out(streams, y, post, comb)


def _mixed_in(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    gain: torch.Tensor,
    limits: Limits,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n, (norm_eps, eps, iterations) = streams.shape[1], limits
    mixes = _projected(streams, fn, norm_eps)
    pre = torch.sigmoid(mixes[:, :n] * scale[0] + base[:n]) + eps
    post = 2 * torch.sigmoid(mixes[:, n : 2 * n] * scale[1] + base[n : 2 * n])
    logits = (mixes[:, 2 * n :] * scale[2] + base[2 * n :]).T.reshape(n, n, -1)
    comb = doubly_stochastic(logits.softmax(1) + eps, iterations, eps)
    x = rms_norm(_weighted(pre, streams), gain.shape, gain, norm_eps)
    return x.to(dtype), post, comb


def _mixed_out(
    streams: torch.Tensor, y: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    y, n = y.float(), streams.shape[1]
    nexts = [_weighted(comb[:, k].T, streams) + post[:, k : k + 1] * y for k in range(n)]
    return torch.stack(nexts, 1)


def _projected(streams: torch.Tensor, fn: torch.Tensor, norm_eps: float) -> torch.Tensor:
    flat = streams.flatten(-2)
    root = torch.rsqrt(flat.square().mean(-1, keepdim=True) + norm_eps)
    return (flat @ fn.T) * root


def _weighted(weights: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    total = weights[:, :1] * streams[:, 0]
    for j in range(1, streams.shape[1]):
        total = total + weights[:, j : j + 1] * streams[:, j]
    return total
