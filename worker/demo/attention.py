"""V4's attention, differentiable, over rows of packed documents: window and entries as one masked
attention. `worker.demo.forward` calls `attend`.

Fused attention knows no sink, so it is spelled as a key: queries get one more channel, which holds
the head's sink, and keys one that is one for the sink's key alone, whose value is zero.
"""

from collections.abc import Mapping

import torch
from torch.nn.functional import linear, pad, rms_norm, scaled_dot_product_attention

from worker.config import CSA_RATIO, ModelConfig
from worker.demo.fused import fused
from worker.demo.layout import BLOCK, Angles, Entries, Layout, QueryBlock

Weights = Mapping[str, torch.Tensor]
SINK_CHANNELS = 8  # one is used; fused kernels want rows of whole 16 bytes


def attend(
    weights: Weights,
    prefix: str,
    config: ModelConfig,
    layout: Layout,
    ratio: int,
    x: torch.Tensor,  # [N, D], N = B * T
    judged: list[torch.Tensor] | None,
) -> torch.Tensor:
    """Output [N, D] in x's dtype. `judged`, where given, receives the loss of this layer's
    indexer, which learns from detached inputs and hence alone."""
    angles = layout.extended if ratio else layout.plain
    sink = weights[f"{prefix}attn_sink"]
    latent, query, keys = _projected(
        x,
        weights[f"{prefix}wq_a.weight"],
        weights[f"{prefix}q_norm.weight"],
        weights[f"{prefix}wq_b.weight"],
        weights[f"{prefix}wkv.weight"],
        weights[f"{prefix}kv_norm.weight"],
        sink,
        angles.cos.flatten(0, 1),
        angles.sin.flatten(0, 1),
        config.head_dim,
        config.rms_norm_eps,
    )
    shape, d = layout.slots.shape, config.head_dim
    query, keys = torch.unflatten(query, 0, shape), torch.unflatten(keys, 0, shape)
    entries = None
    if ratio:
        unpacked = torch.unflatten(x, 0, shape)
        entries = pooled(weights, f"{prefix}compressor.", config, layout, ratio, unpacked)
        entries = entries.to(keys.dtype)
        if judged is not None:
            with torch.no_grad():
                mass = _mass(query[..., :d], keys, entries, sink, layout, ratio)
            inputs = unpacked.detach(), torch.unflatten(latent.detach(), 0, shape)
            judged.append(_judge(weights, prefix, config, layout, *inputs, mass))
    out = [
        _seen(rows, keys, entries, d**-0.5, block)
        for rows, block in zip(torch.split(query, BLOCK, 1), layout.blocks[ratio], strict=True)
    ]
    return _returned(
        torch.cat(out, 1).flatten(0, 1),
        weights[f"{prefix}wo_a.weight"],
        weights[f"{prefix}wo_b.weight"],
        angles.cos.flatten(0, 1),
        angles.sin.flatten(0, 1),
        config.o_groups,
    )


@fused
def _projected(
    x: torch.Tensor,  # [N, D]
    wq_a: torch.Tensor,
    q_norm: torch.Tensor,
    wq_b: torch.Tensor,
    wkv: torch.Tensor,
    kv_norm: torch.Tensor,
    sink: torch.Tensor,  # [H]
    cos: torch.Tensor,  # [N, r]
    sin: torch.Tensor,
    d: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The queries' latent [N, L], queries [N, H, d + SINK_CHANNELS] and keys [N, d]."""
    latent = _norm(linear(x, wq_a), q_norm, eps)
    query = torch.unflatten(linear(latent, wq_b), -1, (-1, d))
    query = _turned(_norm(query, None, eps), cos.unsqueeze(1), sin.unsqueeze(1))
    lifted = (sink * d**0.5).to(query.dtype).view(1, -1, 1).expand(len(x), -1, 1)
    query = torch.cat((query, pad(lifted, (0, SINK_CHANNELS - 1))), -1)
    return latent, query, _turned(_norm(linear(x, wkv), kv_norm, eps), cos, sin)


@fused
def _returned(
    out: torch.Tensor,  # [N, H, d]
    wo_a: torch.Tensor,
    wo_b: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    out = _turned(out, cos.unsqueeze(1), -sin.unsqueeze(1))
    rows, matrices = out.flatten(1).chunk(groups, 1), wo_a.chunk(groups)
    mixed = [linear(x, matrix) for x, matrix in zip(rows, matrices, strict=True)]
    return linear(torch.cat(mixed, 1), wo_b)


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
    return _turned(x, angles.cos, angles.sin)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    width = 2 * cos.shape[-1]
    even, odd = torch.unflatten(x[..., -width:].float(), -1, (-1, 2)).unbind(-1)
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


def _seen(
    query: torch.Tensor,  # [B, rows, H, d + SINK_CHANNELS]
    keys: torch.Tensor,  # [B, T, d]
    entries: torch.Tensor | None,  # [B, E, d]
    scale: float,
    block: QueryBlock,
) -> torch.Tensor:
    """Attention output [B, rows, H, d] of a block's queries; keys are values too."""
    heads, d = query.shape[2], keys.shape[2]
    values = keys[:, block.tokens]
    if entries is not None:
        values = torch.cat((values, entries[:, : block.entries]), 1)
    values = pad(values, (0, SINK_CHANNELS, 0, 1))
    mark = torch.zeros_like(values)
    mark[:, -1, d] = 1
    out = scaled_dot_product_attention(
        query.transpose(1, 2),
        (values + mark).unsqueeze(1).expand(-1, heads, -1, -1),
        values.unsqueeze(1).expand(-1, heads, -1, -1),
        attn_mask=block.mask.to(query.dtype),
        scale=scale,
    )
    return out[..., :d].transpose(1, 2)


def _mass(
    query: torch.Tensor,  # [B, T, H, d]
    keys: torch.Tensor,
    entries: torch.Tensor,
    sink: torch.Tensor,
    layout: Layout,
    ratio: int,
) -> torch.Tensor:
    """Attention that all heads together give each entry [B, T, E], as shares of one."""
    masses: list[torch.Tensor] = []
    for block in layout.blocks[ratio]:
        beside = torch.cat((keys[:, block.tokens], entries[:, : block.entries]), 1)
        scores = torch.einsum("bthd,bkd->bhtk", query[:, block.rows], beside).float()
        column = sink.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores * query.shape[-1] ** -0.5, column), -1) + block.mask
        first = block.tokens.stop - block.tokens.start
        shares = scores.softmax(-1).sum(1)[..., first:-1]
        masses.append(pad(shares, (0, entries.shape[1] - block.entries)))
    mass = torch.cat(masses, 1)
    return mass / mass.sum(-1, keepdim=True).clamp(min=1e-6)


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
    visible = layout.visible[CSA_RATIO]  # [B, T, E]
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
