"""The compressor's pooling: a softmax over tokens, channel by channel."""

import torch


def pool_entries(rows: torch.Tensor) -> torch.Tensor:
    """rows [E, n, 2, D] float32, a value and a score per token and channel, to [E, D]. A score of
    minus infinity leaves its token out."""
    values, scores = rows.unbind(2)
    return (scores.softmax(1) * values).sum(1)
