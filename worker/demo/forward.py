"""The whole network, differentiable: every token of many packed documents at once.

`worker.demo.losses` calls `run`. It computes what `worker.model` computes for each document alone,
by the same formulas (see there), with the caches replaced by masks: the engine's state follows from
a document's earlier tokens, and in training all of them are at hand. Matrices and activations are
in `compute` (float32 or bfloat16); streams, norms, routers and softmaxes of weights in float32.

A forward reads `Weights`: tensors by their official checkpoint names, except that the routed
experts of a layer are stacked (`layers.3.ffn.experts.w1` is [experts, inner, hidden]) and that
`embed` holds the candidate rows of this batch, which are the output head as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.functional import embedding, linear, rms_norm

from worker.config import CSA_RATIO, ModelConfig
from worker.demo.attention import attend
from worker.demo.experts import mixture
from worker.demo.fused import fused
from worker.demo.layout import Layout
from worker.demo.streams import Mix, collapse, mix_in, mix_on, mix_out

Weights = Mapping[str, torch.Tensor]
MTP = "mtp.0."
Pending = tuple[torch.Tensor, Mix]  # a sublayer's output, and how it is mixed in


@dataclass(slots=True)
class Trace:
    """What training wants to know beside the result: `index` the indexers' losses, by layer, and
    `load` the share of tokens each expert of a layer with a learned router got, [experts]."""

    want_index: bool = False
    index: list[torch.Tensor] = field(default_factory=list)
    load: dict[str, torch.Tensor] = field(default_factory=dict)


def run(
    weights: Weights, config: ModelConfig, layout: Layout, trace: Trace | None = None
) -> torch.Tensor:
    """The last layer's streams [N, n, D], float32, N = B * T."""
    trace = trace or Trace()
    embedded = embedding(layout.slots.flatten(), weights["embed"]).float().unsqueeze(1)
    streams = embedded.repeat(1, config.hc_mult, 1)
    pending: Pending | None = None
    for number in range(config.num_hidden_layers):
        prefix = f"layers.{number}."
        streams, pending = _block(weights, prefix, number, config, layout, streams, pending, trace)
    assert pending is not None
    return mix_out(streams, *pending)


def draft(
    weights: Weights,
    config: ModelConfig,
    layout: Layout,
    streams: torch.Tensor,
    trace: Trace | None = None,
) -> torch.Tensor:
    """Streams [N, n, D] of the block that guesses the token after the next, given the token that
    follows each position in the same row; a document's last row means nothing."""
    eps = config.rms_norm_eps
    followers = embedding(layout.slots.roll(-1, 1).flatten(), weights["embed"])
    mixed = _drafted(
        followers,
        streams,
        weights[f"{MTP}enorm.weight"],
        weights[f"{MTP}hnorm.weight"],
        weights[f"{MTP}e_proj.weight"],
        weights[f"{MTP}h_proj.weight"],
        eps,
    )
    number = config.num_hidden_layers
    streams, pending = _block(weights, MTP, number, config, layout, mixed, None, trace or Trace())
    return mix_out(streams, *pending)


@fused
def _drafted(
    followers: torch.Tensor,
    streams: torch.Tensor,
    follower_gain: torch.Tensor,
    stream_gain: torch.Tensor,
    follower_weight: torch.Tensor,
    stream_weight: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    compute = follower_weight.dtype
    followers = rms_norm(followers.float(), follower_gain.shape, follower_gain, eps)
    hidden = rms_norm(streams, stream_gain.shape, stream_gain, eps)
    mixed = linear(followers.to(compute), follower_weight).float().unsqueeze(1)
    return mixed + linear(hidden.to(compute), stream_weight).float()


def hidden(
    weights: Weights, config: ModelConfig, streams: torch.Tensor, prefix: str = ""
) -> torch.Tensor:
    """What the output head reads [R, D], from chosen rows of streams [R, n, D]; `prefix` "mtp.0."
    for the drafting block's."""
    x = collapse(weights, prefix, config, streams)
    return rms_norm(x, x.shape[-1:], weights[f"{prefix}norm.weight"], config.rms_norm_eps)


def _block(
    weights: Weights,
    prefix: str,
    number: int,
    config: ModelConfig,
    layout: Layout,
    streams: torch.Tensor,
    pending: Pending | None,
    trace: Trace,
) -> tuple[torch.Tensor, Pending]:
    """Streams and what is to be mixed into them, after a layer."""
    ratio, compute = config.compress_ratios[number], weights[f"{prefix}attn.wq_a.weight"].dtype
    name, gain = f"{prefix}hc_attn_", weights[f"{prefix}attn_norm.weight"]
    if pending is None:
        x, mix = mix_in(weights, name, gain, config, streams, compute)
    else:
        streams, x, mix = mix_on(weights, name, gain, config, streams, *pending, compute)
    judged = trace.index if trace.want_index and ratio == CSA_RATIO else None
    y = attend(weights, f"{prefix}attn.", config, layout, ratio, x, judged)
    name, gain = f"{prefix}hc_ffn_", weights[f"{prefix}ffn_norm.weight"]
    streams, x, mix = mix_on(weights, name, gain, config, streams, y, mix, compute)
    table = layout.hashed[number] if number < config.num_hash_layers else None
    y, load = mixture(weights, f"{prefix}ffn.", config, x, table)
    if table is None:
        trace.load[f"{prefix}ffn."] = load
    return streams, (y, mix)
