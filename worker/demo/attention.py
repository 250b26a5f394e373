"""V4's attention, differentiable, over rows of packed documents: window and entries as one masked
attention. `worker.demo.forward` calls `attend`.

Fused attention knows no sink, so it is spelled as a key: queries get one more channel, which holds
the head's sink, and keys one that is one for the sink's key alone, whose value is zero.
"""

from collections.abc import Mapping

import torch
from torch.nn.functional import linear, pad, rms_norm, scaled_dot_product_attention

from worker.config import CSA_RATIO, ModelConfig
from worker.demo.layout import Angles, Entries, Layout

Weights = Mapping[str, torch.Tensor]
SINK_CHANNELS = 8  # one is used; fused kernels want rows of whole 16 bytes


def attend(
    weights: Weights,
    prefix: str,
    config: ModelConfig,
    layout: Layout,
    ratio: int,
    x: torch.Tensor,  # [B, T, D]
    judged: list[torch.Tensor] | None,
) -> torch.Tensor:
    """Output [B, T, D] in x's dtype. `judged`, where given, receives the loss of this layer's
    indexer, which learns from detached inputs and hence alone."""
    eps, d = config.rms_norm_eps, config.head_dim
    angles = layout.extended if ratio else layout.plain
    latent = _norm(
        linear(x, weights[f"{prefix}wq_a.weight"]), weights[f"{prefix}q_norm.weight"], eps
    )
    query = torch.unflatten(linear(latent, weights[f"{prefix}wq_b.weight"]), -1, (-1, d))
    query = rotated(_norm(query, None, eps), angles.over_heads())  # [B, T, H, d]
    keys = _norm(linear(x, weights[f"{prefix}wkv.weight"]), weights[f"{prefix}kv_norm.weight"], eps)
    keys = rotated(keys, angles)
    entries = None
    if ratio:
        entries = pooled(weights, f"{prefix}compressor.", config, layout, ratio, x)
        keys = torch.cat((keys, entries.to(keys.dtype)), 1)
    if judged is not None:
        with torch.no_grad():
            mass = _mass(query, keys, weights[f"{prefix}attn_sink"], layout, ratio)
        judged.append(_judge(weights, prefix, config, layout, x.detach(), latent.detach(), mass))
    out = _fused(query, keys, weights[f"{prefix}attn_sink"], layout.seen[ratio])
    out = rotated(out, angles.over_heads().back())
    groups = torch.unflatten(out.flatten(2), -1, (config.o_groups, -1))
    wo_a = torch.unflatten(weights[f"{prefix}wo_a.weight"], 0, (config.o_groups, -1))
    mixed = torch.einsum("btgi,goi->btgo", groups, wo_a)
    return linear(mixed.flatten(2), weights[f"{prefix}wo_b.weight"])


def pooled(
    weights: Weights,
    prefix: str,
    config: ModelConfig,
    layout: Layout,
    ratio: int,
    x: torch.Tensor,
) -> torch.Tensor:
    """Entries [B, E, d] float32 of x [B, T, D], normalised and rotated; `prefix` names the
    compressor. Those that are not finished are full of what nobody may see."""
    entries = layout.entries[ratio]
    values = linear(x, weights[f"{prefix}wkv.weight"]).float()
    scores = linear(x, weights[f"{prefix}wgate.weight"]).float()
    scores = scores + weights[f"{prefix}ape"][layout.positions % ratio]
    if ratio == CSA_RATIO:
        values, scores = _overlapped(values, scores, entries)
    else:
        values, scores = _gathered(values, entries), _gathered(scores, entries)
    merged = (scores.softmax(2) * values).sum(2)
    norm = weights[f"{prefix}norm.weight"]
    return rotated(rms_norm(merged, merged.shape[-1:], norm, config.rms_norm_eps), entries.angles)


def rotated(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    """x with its last channels turned, pair by pair, in float32; x's dtype."""
    width = 2 * angles.cos.shape[-1]
    even, odd = torch.unflatten(x[..., -width:].float(), -1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos, angles.sin
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
    return torch.cat((x[..., :-width], turned.to(x.dtype)), -1)


def _norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    return rms_norm(x.float(), x.shape[-1:], weight, eps).to(x.dtype)


def _overlapped(
    values: torch.Tensor, scores: torch.Tensor, entries: Entries
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and scores [B, E, 8, d]: the first halves of the four tokens before an entry's own,
    where it is not the document's first, and the second halves of its own four."""

    def joined(x: torch.Tensor, absent: float) -> torch.Tensor:
        groups = torch.unflatten(x, 1, (-1, CSA_RATIO))  # [B, E, 4, 2d]
        before, own = groups.chunk(2, dim=-1)
        before = pad(before[:, :-1], (0, 0, 0, 0, 1, 0))
        before = before.masked_fill(entries.first.unsqueeze(-1).unsqueeze(-1), absent)
        return torch.cat((before, own), 2)

    return joined(values, 0.0), joined(scores, float("-inf"))


def _gathered(x: torch.Tensor, entries: Entries) -> torch.Tensor:
    """Rows [B, E, ratio, W] of x [B, T, W]."""
    b, e, ratio = entries.rows.shape
    index = entries.rows.view(b, e * ratio, 1).expand(-1, -1, x.shape[-1])
    return x.gather(1, index).view(b, e, ratio, -1)


def _fused(
    query: torch.Tensor, keys: torch.Tensor, sink: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Attention output [B, T, H, d] of query [B, T, H, d] over keys [B, K, d], which are the values
    too; `seen` [B, 1, T, K + 1] has the sink last."""
    b, t, heads, d = query.shape
    scale = d**-0.5
    lifted = (sink / scale).to(query.dtype).view(1, 1, heads, 1).expand(b, t, heads, 1)
    wide = torch.cat((query, pad(lifted, (0, SINK_CHANNELS - 1))), -1).transpose(1, 2)
    values = pad(keys, (0, SINK_CHANNELS, 0, 1))
    mark = torch.zeros_like(values)
    mark[:, -1, d] = 1
    out = scaled_dot_product_attention(
        wide,
        (values + mark).unsqueeze(1).expand(-1, heads, -1, -1),
        values.unsqueeze(1).expand(-1, heads, -1, -1),
        attn_mask=seen,
        scale=scale,
    )
    return out[..., :d].transpose(1, 2)


def _mass(
    query: torch.Tensor, keys: torch.Tensor, sink: torch.Tensor, layout: Layout, ratio: int
) -> torch.Tensor:
    """Attention that all heads together give each entry [B, T, E], as shares of one."""
    tokens = query.shape[1]
    scores = torch.einsum("bthd,bkd->bthk", query, keys).float() * query.shape[-1] ** -0.5
    seen = layout.seen[ratio].transpose(1, 2)  # [B, T, 1, K + 1]
    scores = torch.cat((scores, sink.view(1, 1, -1, 1).expand(*scores.shape[:3], 1)), -1)
    shares = scores.masked_fill(~seen, float("-inf")).softmax(-1).sum(2)[..., tokens:-1]
    return shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)


def _judge(
    weights: Weights,
    prefix: str,
    config: ModelConfig,
    layout: Layout,
    x: torch.Tensor,
    latent: torch.Tensor,
    mass: torch.Tensor,
) -> torch.Tensor:
    """Mean KL divergence of the indexer's choice from the attention it stands in for: how
    DeepSeek's sparse attention warms its indexers up (V3.2 report)."""
    scores = index_scores(weights, f"{prefix}indexer.", config, layout, x, latent)
    visible = layout.seen[CSA_RATIO][:, 0, :, x.shape[1] : -1]  # [B, T, E]
    guessed = scores.masked_fill(~visible, -1e30).log_softmax(-1)
    rows = (visible.sum(-1) > 1).float()  # of one entry there is nothing to choose
    gap = mass * (mass.clamp(min=1e-9).log() - guessed)
    gap = gap.masked_fill(~visible, 0).sum(-1)
    return (gap * rows).sum() / rows.sum().clamp(min=1)


def index_scores(
    weights: Weights,
    prefix: str,
    config: ModelConfig,
    layout: Layout,
    x: torch.Tensor,
    latent: torch.Tensor,
) -> torch.Tensor:
    """Scores [B, T, E] float32, before the mask: sum_h w_h relu(q_h . k_j)."""
    heads, dim = config.index_n_heads, config.index_head_dim
    query = torch.unflatten(linear(latent, weights[f"{prefix}wq_b.weight"]), -1, (heads, dim))
    query = rotated(query, layout.extended.over_heads())
    keys = pooled(weights, f"{prefix}compressor.", config, layout, CSA_RATIO, x).to(query.dtype)
    by_head = torch.einsum("bthd,bed->bthe", query, keys).relu()
    share = linear(x, weights[f"{prefix}weights_proj.weight"]) * (dim**-0.5 * heads**-0.5)
    return torch.einsum("bthe,bth->bte", by_head, share).float()
