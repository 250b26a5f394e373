"""Hyper-connections in two kernels in, one out: products, then weights and sum, then next streams.

Formulas and shapes are those of `worker.kernels.reference.hyper_connection`.
"""

import torch

from worker.config import ModelConfig
from worker.kernels.triton import stream_mixing, stream_projection
from worker.kernels.triton.stream_mixing import mix, spread
from worker.kernels.triton.stream_projection import project

VARIANTS = stream_projection.VARIANTS + stream_mixing.VARIANTS


def unsupported(config: ModelConfig) -> str | None:
    """Why these kernels cannot run a model of `config`, if so."""
    if config.hc_mult & (config.hc_mult - 1):
        return f"hc_mult must be a power of two, not {config.hc_mult}"
    return None


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
    streams = streams.contiguous()
    tokens, n, width = streams.shape
    if tokens == 0:
        empty = fn.new_empty(0, n)
        return streams.new_empty(0, width), empty, fn.new_empty(0, n, n)
    partials = project(streams, fn)
    return mix(streams, partials, base, scale, iterations=iterations, eps=eps, norm_eps=norm_eps)


def hyper_connection_out(
    y: torch.Tensor,  # [T, D] the sublayer's output
    streams: torch.Tensor,  # [T, n, D]
    post: torch.Tensor,  # [T, n]
    comb: torch.Tensor,  # [T, n, n]
) -> torch.Tensor:
    """The next streams [T, n, D]: stream k is post_k y + sum_j comb_jk streams_j."""
    if len(streams) == 0:
        return torch.empty_like(streams)
    return spread(y.contiguous(), streams.contiguous(), post.contiguous(), comb.contiguous())


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
    streams = streams.contiguous()
    if len(streams) == 0:
        return streams.new_empty(0, streams.shape[2])
    partials = project(streams, fn)
    return mix(streams, partials, base, scale, iterations=1, eps=eps, norm_eps=norm_eps)[0]
