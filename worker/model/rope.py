"""Rotary angles of V4: plain in window-only layers, YaRN without attention scaling elsewhere.

In float32 from frequencies to angles, as in DeepSeek's published code and in transformers: near a
million positions that is up to 0.03 radians off the exact product, and it is what the weights and
every other implementation know. More digits would be another model there.
"""

import math

import torch

from worker.config import ModelConfig, Yarn


def frequencies(config: ModelConfig, compressed: bool, device: str | torch.device) -> torch.Tensor:
    """Radians per position of each channel pair, [qk_rope_head_dim / 2] float32."""
    width = config.qk_rope_head_dim
    theta = config.compress_rope_theta if compressed else config.rope_theta
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    plain = 1.0 / theta**exponent
    if not compressed or config.rope_scaling is None:
        return plain
    return _extended(plain, config.rope_scaling, theta)


def angles(frequency: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Unit complex numbers [T, r] that turn each pair at `positions` [T]."""
    radians = positions.float().unsqueeze(1) * frequency
    return torch.polar(torch.ones_like(radians), radians)


def _extended(plain: torch.Tensor, yarn: Yarn, theta: float) -> torch.Tensor:
    """YaRN: slow pairs stretched by `factor`, fast pairs kept, a linear ramp between."""
    pairs = len(plain)

    def pair_with(rotations: float) -> float:
        length = yarn.original_max_position_embeddings / (rotations * 2 * math.pi)
        return pairs * math.log(length) / math.log(theta)

    low = max(math.floor(pair_with(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with(yarn.beta_slow)), 2 * pairs - 1)
    pair = torch.arange(pairs, dtype=torch.float32, device=plain.device)
    ramp = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain / yarn.factor * ramp + plain * (1 - ramp)
