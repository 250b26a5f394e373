"""The whole network: embedding, layers of attention and experts, output head.

`ModelRunner` builds one from loaded weights and calls it once per forward. `mtp` builds its one
block of the same parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding

from worker.config import ModelConfig
from worker.kernels.load import KernelBackend
from worker.model.attention import Attention
from worker.model.hyper_connection import HyperConnection, Residual
from worker.model.layer_cache import LayerCache
from worker.model.loader import Weights
from worker.model.moe import MixtureOfExperts
from worker.model.numerics import Numerics
from worker.model.ragged import RaggedBatch
from worker.model.rope import angles, frequencies
from worker.parallel.groups import ALONE, ExpertGroup


@dataclass(frozen=True, slots=True)
class Angles:
    """One forward's rotary angles, shared by all layers of a kind."""

    plain: torch.Tensor  # [T, r] window-only layers
    extended: torch.Tensor  # [T, r] compressed layers
    entries: dict[int, torch.Tensor]  # [E, r] by ratio


class Layer:
    """Attention, then experts, each behind its hyper-connection."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        ratio: int,
        config: ModelConfig,
        numerics: Numerics,
        kernels: KernelBackend,
        group: ExpertGroup,
    ) -> None:
        self.ratio = ratio
        self.attention = Attention(weights, f"{prefix}attn.", ratio, config, numerics, kernels)
        self.experts = MixtureOfExperts(weights, f"{prefix}ffn.", config, numerics, kernels, group)
        self.attention_residual = HyperConnection(weights, f"{prefix}hc_attn_", config, kernels)
        self.experts_residual = HyperConnection(weights, f"{prefix}hc_ffn_", config, kernels)
        self.attention_norm = weights[f"{prefix}attn_norm.weight"]
        self.experts_norm = weights[f"{prefix}ffn_norm.weight"]
        self.norm_eps = config.rms_norm_eps
        self.kernels = kernels

    def __call__(
        self, residual: Residual, batch: RaggedBatch, turn: Angles, cache: LayerCache
    ) -> Residual:
        def attend(x: torch.Tensor) -> torch.Tensor:
            x = self.kernels.rms_norm(x, self.attention_norm, self.norm_eps)
            own = turn.extended if self.ratio else turn.plain
            return self.attention(x, batch, own, turn.entries.get(self.ratio), cache)

        def think(x: torch.Tensor) -> torch.Tensor:
            x = self.kernels.rms_norm(x, self.experts_norm, self.norm_eps)
            return self.experts(x, batch.token_ids)

        return self.experts_residual(self.attention_residual(residual, attend), think)

    def step_along(self, nothing: torch.Tensor) -> None:
        """Take part in this layer's expert exchange without a token: `nothing` [0, D]."""
        self.experts(nothing, torch.empty(0, dtype=torch.long, device=nothing.device))


class Readout:
    """Streams [R, n, D] to the output head's input [R, D]: one more mix, and the last norm."""

    def __init__(
        self, weights: Weights, prefix: str, config: ModelConfig, kernels: KernelBackend
    ) -> None:
        self.fn, self.base, self.scale = (
            weights[f"{prefix}hc_head_{n}"] for n in ("fn", "base", "scale")
        )
        self.norm = weights[f"{prefix}norm.weight"]
        self.config = config
        self.kernels = kernels

    def __call__(self, streams: torch.Tensor) -> torch.Tensor:
        eps, norm_eps = self.config.hc_eps, self.config.rms_norm_eps
        hidden = self.kernels.hyper_connection_head(
            streams, self.fn, self.base, self.scale, eps=eps, norm_eps=norm_eps
        )
        return self.kernels.rms_norm(hidden, self.norm, norm_eps)


class Transformer:
    """DeepSeek-V4 without multi-token prediction. Takes `weights` apart: tensors that are stored
    anew in another layout are removed from it."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        numerics: Numerics,
        kernels: KernelBackend,
        group: ExpertGroup = ALONE,
    ) -> None:
        self.config = config
        self.kernels = kernels
        self.group = group
        self.embed = weights["embed.weight"]
        # [D, vocab]: for a few rows the product is several times faster than with [vocab, D].
        self.head = weights.pop("head.weight").t().contiguous()
        self.readout = Readout(weights, "", config, kernels)
        self.layers = [
            Layer(
                weights, f"layers.{i}.", config.compress_ratios[i], config, numerics, kernels, group
            )
            for i in range(config.num_hidden_layers)
        ]
        self.plain = frequencies(config, compressed=False, device=self.head.device)
        self.extended = frequencies(config, compressed=True, device=self.head.device)

    def __call__(self, batch: RaggedBatch, caches: Sequence[LayerCache]) -> torch.Tensor:
        """Run every token of `batch`; caches are updated. Returns the last streams [T, n, D]."""
        turn = self.angles(batch)
        streams = embedding(batch.token_ids, self.embed).unsqueeze(1)
        residual = Residual(streams.repeat(1, self.config.hc_mult, 1))
        for layer, cache in zip(self.layers, caches, strict=True):
            residual = layer(residual, batch, turn, cache)
        return residual.settled(self.kernels)

    def step_along(self) -> None:
        """Take part in another rank's forward: the same expert exchanges, without a token."""
        for layer in self.layers:
            layer.step_along(self.embed[:0])

    def angles(self, batch: RaggedBatch) -> Angles:
        """The rotary angles of one forward."""
        return Angles(
            plain=angles(self.plain, batch.positions),
            extended=angles(self.extended, batch.positions),
            entries={r: angles(self.extended, e.positions) for r, e in batch.emissions.items()},
        )

    def logits(self, streams: torch.Tensor) -> torch.Tensor:
        """Float32 logits [R, vocab] of chosen rows of the last streams [R, n, D]."""
        return self.project(self.readout(streams))

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits [R, vocab] of what a readout gives [R, D]."""
        return hidden.float() @ self.head
