"""Interleaved rotary embedding of the last channels."""

import torch


def rotate_(x: torch.Tensor, angles: torch.Tensor) -> None:
    """Turn the last 2r channels of x [T, ..., D] in place, pair by pair, by the unit complex
    numbers `angles` [T, r] (complex64). Conjugated angles undo it."""
    channels = x[..., -2 * angles.shape[-1] :]
    pairs = torch.view_as_complex(torch.unflatten(channels.float(), -1, (-1, 2)))  # [T, ..., r]
    turned = pairs * angles.reshape(len(angles), *(1,) * (x.dim() - 2), angles.shape[1])
    channels.copy_(torch.view_as_real(turned).flatten(-2))
