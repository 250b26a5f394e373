"""A residual connection over several streams, around one sublayer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from worker.config import ModelConfig
from worker.kernels.load import KernelBackend
from worker.model.loader import Weights


@dataclass(frozen=True, slots=True)
class Residual:
    """Streams between two sublayers. The last one's output is mixed in together with the next
    one's input, so that the streams pass through memory once for both."""

    streams: torch.Tensor  # [T, n, D]
    pending: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None  # y [T, D], post, comb

    def settled(self, kernels: KernelBackend) -> torch.Tensor:
        """The streams [T, n, D] with every output mixed in."""
        if self.pending is None:
            return self.streams
        y, post, comb = self.pending
        return kernels.hyper_connection_out(y, self.streams, post, comb)


class HyperConnection:
    """`prefix` names its three tensors, such as `layers.0.hc_attn_`."""

    def __init__(
        self, weights: Weights, prefix: str, config: ModelConfig, kernels: KernelBackend
    ) -> None:
        self.fn, self.base, self.scale = (weights[prefix + n] for n in ("fn", "base", "scale"))
        self.config = config
        self.kernels = kernels

    def __call__(
        self, residual: Residual, sublayer: Callable[[torch.Tensor], torch.Tensor]
    ) -> Residual:
        """The residual after `sublayer` [T, D] -> [T, D] has run on the streams' mix."""
        streams, x, post, comb = self._entered(residual)
        return Residual(streams, (sublayer(x), post, comb))

    def _entered(
        self, residual: Residual
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The settled streams, the sublayer's input, post and comb."""
        streams, config = residual.streams, self.config
        eps, norm_eps = config.hc_eps, config.rms_norm_eps
        if residual.pending is None:
            opened = self.kernels.hyper_connection_in(
                streams,
                self.fn,
                self.base,
                self.scale,
                iterations=config.hc_sinkhorn_iters,
                eps=eps,
                norm_eps=norm_eps,
            )
            return streams, *opened
        y, post, comb = residual.pending
        return self.kernels.hyper_connection_next(
            y,
            streams,
            post,
            comb,
            self.fn,
            self.base,
            self.scale,
            iterations=config.hc_sinkhorn_iters,
            eps=eps,
            norm_eps=norm_eps,
        )
