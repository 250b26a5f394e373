"""Published formulas in float64 that the references of MTP and of the official numerics share: no
code of the worker, nothing but tensors."""

import torch

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)


def dequantised(stored: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The matrix or vector `name` of a checkpoint, its E8M0 scales multiplied in."""
    weight, scale = stored[f"{name}.weight"], stored.get(f"{name}.scale")
    if scale is None:
        return weight.double()
    power = torch.exp2(scale.view(torch.uint8).double() - 127)
    if weight.dtype == torch.int8:
        codes = weight.view(torch.uint8).long()
        codes = torch.stack((codes & 15, codes >> 4), -1).flatten(1)
        values = E2M1[codes & 7] * torch.where(codes < 8, 1.0, -1.0)
        return values * power.repeat_interleave(32, 1)
    rows, columns = weight.shape
    power = power.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    return weight.double() * power


def turned(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """x [..., d] with the last 2r channels turned by `angle` [..., r], in adjacent pairs."""
    r = 2 * angle.shape[-1]
    a, b = x[..., -r::2], x[..., -r + 1 :: 2]
    pairs = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
    return torch.cat((x[..., :-r], torch.stack(pairs, -1).flatten(-2)), -1)


def doubly_stochastic(C: torch.Tensor, iterations: int, eps: float) -> torch.Tensor:
    """C [T, n, n], positive: columns, then rows and columns in turn, over their sums."""
    C = C / (C.sum(1, keepdim=True) + eps)
    for _ in range(iterations - 1):
        C = C / (C.sum(2, keepdim=True) + eps)
        C = C / (C.sum(1, keepdim=True) + eps)
    return C
