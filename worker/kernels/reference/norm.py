"""Root-mean-square normalisation over the last axis."""

import torch


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """x [..., D] over its root mean square, in float32, times `weight` [D] if given; x's dtype."""
    return torch.nn.functional.rms_norm(x.float(), x.shape[-1:], weight, eps).to(x.dtype)
