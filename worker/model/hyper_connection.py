"""A residual connection over several streams, around one sublayer."""

from collections.abc import Callable

import torch

from worker.config import ModelConfig
from worker.kernels.load import KernelBackend
from worker.model.loader import Weights


class HyperConnection:
    """`prefix` names its three tensors, such as `layers.0.hc_attn_`."""

    def __init__(
        self, weights: Weights, prefix: str, config: ModelConfig, kernels: KernelBackend
    ) -> None:
        self.fn, self.base, self.scale = (weights[prefix + n] for n in ("fn", "base", "scale"))
        self.config = config
        self.kernels = kernels

    def __call__(
        self, streams: torch.Tensor, sublayer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Streams [T, n, D] after `sublayer` [T, D] -> [T, D] has run on their mix."""
        x, post, comb = self.kernels.hyper_connection_in(
            streams,
            self.fn,
            self.base,
            self.scale,
            iterations=self.config.hc_sinkhorn_iters,
            eps=self.config.hc_eps,
            norm_eps=self.config.rms_norm_eps,
        )
        return self.kernels.hyper_connection_out(sublayer(x), streams, post, comb)
