"""Multi-token prediction: one block beyond the last layer that guesses the token after the next.

With X_t the streams of position t after the last layer, and id_t+1 the token that follows it, the
block's input is e_proj RMS(embed(id_t+1)), given to every stream, plus h_proj RMS(X_t). Behind the
block, which has a window and no entries, comes a readout of its own; embedding and output head are
the model's. For guesses further ahead the block's own streams take the place of X_t, and a guess
that of the token. Source: DeepSeek's published inference code. `worker.runner.drafter` calls it.
"""

import torch
from torch.nn.functional import embedding

from worker.kernels.load import KernelBackend
from worker.model.hyper_connection import Residual
from worker.model.layer_cache import LayerCache
from worker.model.linear import Linear
from worker.model.loader import Weights
from worker.model.numerics import Numerics
from worker.model.ragged import RaggedBatch
from worker.model.transformer import Layer, Readout, Transformer

PREFIX = "mtp.0."


class DraftHead:
    """The block of `model`'s checkpoint, beside it. Takes `weights` apart as `model` does."""

    def __init__(
        self, model: Transformer, weights: Weights, numerics: Numerics, kernels: KernelBackend
    ) -> None:
        config = model.config
        quantised = kernels if numerics.quantise else None
        self.model = model
        self.e_proj = Linear(weights[f"{PREFIX}e_proj.weight"], quantised)
        self.h_proj = Linear(weights[f"{PREFIX}h_proj.weight"], quantised)
        self.e_norm = weights[f"{PREFIX}enorm.weight"]
        self.h_norm = weights[f"{PREFIX}hnorm.weight"]
        self.block = Layer(weights, PREFIX, 0, config, numerics, kernels, model.group)
        self.readout = Readout(weights, PREFIX, config, kernels)
        self.norm_eps = config.rms_norm_eps
        self.kernels = kernels

    def __call__(
        self, streams: torch.Tensor, batch: RaggedBatch, cache: LayerCache
    ) -> torch.Tensor:
        """The block's streams [T, n, D] from those of the layers before it [T, n, D], where
        `batch.token_ids` [T] are the tokens that *follow* its positions; `cache` is updated."""
        follower = embedding(batch.token_ids, self.model.embed)
        follower = self.e_proj(self.kernels.rms_norm(follower, self.e_norm, self.norm_eps))
        hidden = self.h_proj(self.kernels.rms_norm(streams, self.h_norm, self.norm_eps))
        mixed = Residual(follower.unsqueeze(1) + hidden)
        residual = self.block(mixed, batch, self.model.angles(batch), cache)
        return residual.settled(self.kernels)

    def step_along(self) -> None:
        """Take part in another rank's pass of the block, without a token."""
        self.block.step_along(self.model.embed[:0])

    def logits(self, streams: torch.Tensor) -> torch.Tensor:
        """Float32 logits [R, vocab] of the tokens after the followers, from `streams` [R, n, D]."""
        return self.model.project(self.readout(streams))
