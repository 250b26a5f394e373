"""Hyper-connections, differentiable: the streams' mix before and after a sublayer.

The formulas are those of `worker.kernels.reference.hyper_connection`; the normalisation comes after
the product, which is the same number and one pass over the streams less. Sums over four streams are
spelled out, so that a compiler makes one pass of them: `compile_mixes` says that it shall.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from worker.config import ModelConfig

Weights = Mapping[str, torch.Tensor]


def mix_in(
    weights: Weights, prefix: str, config: ModelConfig, streams: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sublayer's input [B, T, D] from streams [B, T, n, D], and the weights `mix_out` needs:
    post [B * T, n] and comb [n, n, B * T]. `prefix` names the tensors fn, base and scale."""
    fn, base, scale = (weights[prefix + name] for name in ("fn", "base", "scale"))
    limits = (config.rms_norm_eps, config.hc_eps, config.hc_sinkhorn_iters)
    x, post, comb = _mixes["in"](streams.flatten(0, 1), fn, base, scale, *limits)
    return x.unflatten(0, streams.shape[:2]), post, comb


def mix_out(
    streams: torch.Tensor, y: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    """The next streams [B, T, n, D] from the sublayer's output y [B, T, D]: stream k is
    post_k y + sum_j comb_jk streams_j."""
    out: torch.Tensor = _mixes["out"](streams.flatten(0, 1), y.flatten(0, 1), post, comb)
    return out.view_as(streams)


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


def compile_mixes(on: bool) -> None:
    """Compile the mixes at their next call (half a minute, kept by torch), or run them as they
    stand. One process trains one model: the choice is the process's."""
    plain: dict[str, Callable[..., Any]] = {"in": _mix_in, "out": _mix_out}
    for name, mix in plain.items():
        _mixes[name] = torch.compile(mix, dynamic=False) if on else mix


def _mix_in(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    norm_eps: float,
    eps: float,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n = streams.shape[1]
    mixes = _projected(streams, fn, norm_eps)
    pre = torch.sigmoid(mixes[:, :n] * scale[0] + base[:n]) + eps
    post = 2 * torch.sigmoid(mixes[:, n : 2 * n] * scale[1] + base[n : 2 * n])
    logits = (mixes[:, 2 * n :] * scale[2] + base[2 * n :]).T.reshape(n, n, -1)
    comb = doubly_stochastic(logits.softmax(1) + eps, iterations, eps)
    return _weighted(pre, streams), post, comb


def _mix_out(
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


_mixes: dict[str, Callable[..., Any]] = {"in": _mix_in, "out": _mix_out}
