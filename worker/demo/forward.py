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
from worker.demo.layout import Layout
from worker.demo.streams import collapse, mix_in, mix_out

Weights = Mapping[str, torch.Tensor]
MTP = "mtp.0."


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
    """The last layer's streams [B, T, n, D], float32."""
    trace = trace or Trace()
    embedded = embedding(layout.slots, weights["embed"]).float().unsqueeze(2)
    streams = embedded.expand(-1, -1, config.hc_mult, -1)
    for number in range(config.num_hidden_layers):
        streams = _block(weights, f"layers.{number}.", number, config, layout, streams, trace)
    return streams


def draft(
    weights: Weights,
    config: ModelConfig,
    layout: Layout,
    streams: torch.Tensor,
    trace: Trace | None = None,
) -> torch.Tensor:
    """Streams [B, T, n, D] of the block that guesses the token after the next, given the token that
    follows each position in the same row; a document's last row means nothing."""
    eps = config.rms_norm_eps
    followers = embedding(layout.slots.roll(-1, 1), weights["embed"]).float()
    compute = weights[f"{MTP}e_proj.weight"].dtype
    followers = rms_norm(followers, followers.shape[-1:], weights[f"{MTP}enorm.weight"], eps)
    hidden = rms_norm(streams, streams.shape[-1:], weights[f"{MTP}hnorm.weight"], eps)
    mixed = linear(followers.to(compute), weights[f"{MTP}e_proj.weight"]).float().unsqueeze(2)
    mixed = mixed + linear(hidden.to(compute), weights[f"{MTP}h_proj.weight"]).float()
    number = config.num_hidden_layers
    return _block(weights, MTP, number, config, layout, mixed, trace or Trace())


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
    trace: Trace,
) -> torch.Tensor:
    ratio, eps = config.compress_ratios[number], config.rms_norm_eps
    compute = weights[f"{prefix}attn.wq_a.weight"].dtype
    x, post, comb = mix_in(weights, f"{prefix}hc_attn_", config, streams)
    x = rms_norm(x, x.shape[-1:], weights[f"{prefix}attn_norm.weight"], eps).to(compute)
    judged = trace.index if trace.want_index and ratio == CSA_RATIO else None
    y = attend(weights, f"{prefix}attn.", config, layout, ratio, x, judged)
    streams = mix_out(streams, y, post, comb)
    x, post, comb = mix_in(weights, f"{prefix}hc_ffn_", config, streams)
    x = rms_norm(x, x.shape[-1:], weights[f"{prefix}ffn_norm.weight"], eps).to(compute)
    table = layout.hashed[number] if number < config.num_hash_layers else None
    y, load = mixture(weights, f"{prefix}ffn.", config, x.flatten(0, 1), table)
    if table is None:
        trace.load[f"{prefix}ffn."] = load
    return mix_out(streams, y.view_as(x), post, comb)
