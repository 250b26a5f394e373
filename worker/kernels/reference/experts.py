"""Routed experts, tokens grouped by expert."""

import torch
from torch.nn.functional import silu

from worker.kernels.dense import product
from worker.kernels.reference.quantise import quantise_activation


def gated(gate_up: torch.Tensor, limit: float) -> torch.Tensor:
    """silu(min(gate, limit)) * clamp(up, -limit, limit) of [..., 2I], the gate first."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)


def grouped_experts(
    x: torch.Tensor,  # [T, D]
    gate_up: torch.Tensor,  # [experts, 2I, D]
    down: torch.Tensor,  # [experts, D, I]
    chosen: torch.Tensor,  # [T, k] expert ids; `experts` itself stands for none
    weights: torch.Tensor,  # [T, k] float32
    *,
    limit: float,
    quantise: bool,
) -> torch.Tensor:
    """Weighted sum of the chosen experts' outputs, [T, D] float32; the weight is applied before
    the down projection, as in training."""
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    if quantise:
        x = quantise_activation(x)
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    token, weight = order // chosen.shape[1], weights.flatten()[order].unsqueeze(1)
    stop = 0
    for expert, count in enumerate(flat.bincount(minlength=len(down)).tolist()[: len(down)]):
        if count == 0:
            continue
        start, stop = stop, stop + count
        rows = token[start:stop]
        hidden = gated(product(x[rows], gate_up[expert]).float(), limit) * weight[start:stop]
        hidden = hidden.to(x.dtype)
        if quantise:
            hidden = quantise_activation(hidden)
        out.index_add_(0, rows, product(hidden, down[expert]).float())
    return out
