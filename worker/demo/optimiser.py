"""Muon for matrices, Adam for everything else, in plain functions over a state of tensors.

Muon (Jordan 2024) makes a matrix's momentum orthogonal by five Newton-Schulz steps; updates are
scaled to a root mean square of the learning rate whatever the shape (as in Moonlight, 2025).
Matrices of one shape are turned together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from worker.demo.parameters import is_matrix

MOMENTUM, DECAY = 0.95, 0.1
BETAS, EPS = (0.9, 0.98), 1e-10
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
TURNS = 5


@dataclass(slots=True)
class OptimiserState:
    """Moments by parameter name: `first` of all, `second` of Adam's alone; `steps` taken."""

    first: dict[str, torch.Tensor] = field(default_factory=dict)
    second: dict[str, torch.Tensor] = field(default_factory=dict)
    steps: int = 0


@torch.no_grad()
def step(
    state: OptimiserState,
    tensors: Mapping[str, torch.Tensor],
    *,
    matrix_rate: float,
    rate: float,
    clip: float,
) -> torch.Tensor:
    """Move `tensors` along their gradients, which are cleared, and return the gradients' norm
    before it was clipped to `clip`. Tensors without a gradient stay."""
    moved = {name: t for name, t in tensors.items() if t.grad is not None}
    gradients = {name: t.grad for name, t in moved.items() if t.grad is not None}
    norm: torch.Tensor = torch.stack([g.norm() for g in gradients.values()]).norm()
    factor = (clip / (norm + 1e-6)).clamp(max=1.0)
    state.steps += 1
    shapes: dict[torch.Size, list[str]] = {}
    for name, tensor in moved.items():
        gradient = gradients[name].mul_(factor)
        first = state.first.setdefault(name, torch.zeros_like(tensor))
        if is_matrix(name, tuple(tensor.shape)):
            first.lerp_(gradient, 1 - MOMENTUM)
            shapes.setdefault(tensor.shape[-2:], []).append(name)
        else:
            first.lerp_(gradient, 1 - BETAS[0])
            _adam(state, name, tensor, gradient, rate)
    for names in shapes.values():
        _muon(state, moved, gradients, names, matrix_rate)
    for tensor in moved.values():
        tensor.grad = None
    return norm


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[n, out, in] with singular values near one, by Newton-Schulz in bfloat16."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16()
    x = x.transpose(1, 2) if tall else x
    x = x / (x.float().flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7).bfloat16()
    a, b, c = NEWTON_SCHULZ
    for _ in range(TURNS):
        square = x @ x.transpose(1, 2)
        square = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, square, x, beta=a)
    result: torch.Tensor = (x.transpose(1, 2) if tall else x).float()
    return result


def _adam(
    state: OptimiserState, name: str, tensor: torch.Tensor, gradient: torch.Tensor, rate: float
) -> None:
    second = state.second.setdefault(name, torch.zeros_like(tensor))
    second.lerp_(gradient.square(), 1 - BETAS[1])
    first = state.first[name] / (1 - BETAS[0] ** state.steps)
    tensor.sub_(rate * first / ((second / (1 - BETAS[1] ** state.steps)).sqrt() + EPS))


def _muon(
    state: OptimiserState,
    tensors: Mapping[str, torch.Tensor],
    gradients: Mapping[str, torch.Tensor],
    names: Iterable[str],
    rate: float,
) -> None:
    """All of one shape; a layer's experts are several matrices."""
    names = list(names)
    ahead = [gradients[n].lerp(state.first[n], MOMENTUM) for n in names]
    width = tensors[names[0]].shape[-2:]
    turned = orthogonal(torch.cat([m.reshape(-1, *width) for m in ahead]))
    turned = turned * max(width) ** 0.5
    counts = [m.numel() // width.numel() for m in ahead]
    for name, part in zip(names, turned.split(counts), strict=True):
        tensor = tensors[name]
        tensor.mul_(1 - rate * DECAY).sub_(rate * part.view_as(tensor))
