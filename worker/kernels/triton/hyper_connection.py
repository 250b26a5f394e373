"""Hyper-connections in two kernels in, one out, and two from one sublayer to the next.

Formulas and shapes are those of `worker.kernels.reference.hyper_connection`.
"""

import torch

from worker.config import ModelConfig
from worker.kernels.triton import stream_advance, stream_mixing, stream_projection
from worker.kernels.triton.stream_advance import advance
from worker.kernels.triton.stream_mixing import mix, spread
from worker.kernels.triton.stream_projection import project

VARIANTS = stream_projection.VARIANTS + stream_advance.VARIANTS + stream_mixing.VARIANTS


def unsupported(config: ModelConfig) -> str | None:
    """Why these kernels cannot run a model of `config`, if so."""
    if config.hc_mult not in (1, 2, 4):
        return f"hc_mult must be 1, 2 or 4, not {config.hc_mult}"
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
    if len(streams) == 0:
        return streams, *hyper_connection_in(
            streams, fn, base, scale, iterations=iterations, eps=eps, norm_eps=norm_eps
        )
    streams, partials = advance(
        y.contiguous(), streams.contiguous(), post.contiguous(), comb.contiguous(), fn
    )
    return streams, *mix(
        streams, partials, base, scale, iterations=iterations, eps=eps, norm_eps=norm_eps
    )


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
