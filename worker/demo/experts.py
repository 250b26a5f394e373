"""The mixture of experts, differentiable: tokens sorted by expert, one grouped product per matrix.

Nothing waits for the device: sizes of the groups stay there.
"""

from collections.abc import Mapping

import torch
from torch.nn.functional import linear, silu, softplus

from worker.config import ModelConfig
from worker.model.moe import LEAST_SUM

Weights = Mapping[str, torch.Tensor]


def mixture(
    weights: Weights, prefix: str, config: ModelConfig, x: torch.Tensor, hashed: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [N, D] float32 for x [N, D], and each expert's share of the choices [experts].
    `hashed` [N, k] are the experts of layers that route by token id."""
    k, count = config.num_experts_per_tok, config.n_routed_experts
    scores = softplus(linear(x.float(), weights[f"{prefix}gate.weight"])).sqrt()
    if hashed is None:
        biased = scores.detach() + weights[f"{prefix}gate.bias"]
        chosen = biased.topk(k, dim=-1).indices
    else:
        chosen = hashed
    gates = scores.gather(1, chosen)
    gates = gates * (config.routed_scaling_factor / (gates.sum(-1, keepdim=True) + LEAST_SUM))
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    sizes = torch.zeros(count, dtype=torch.long, device=x.device)
    sizes = sizes.scatter_add(0, flat, torch.ones_like(flat))
    # Copies first, a permutation then: neither its gradient nor its inverse's adds in any order.
    rows = x.unsqueeze(1).expand(-1, k, -1).flatten(0, 1)[order]
    out = _routed(weights, prefix, config, rows, gates.flatten()[order], sizes)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
    routed = out[inverse].view(len(x), k, -1).float().sum(1)
    return routed + _shared(weights, prefix, config, x), sizes.float() / len(flat)


def _routed(
    weights: Weights,
    prefix: str,
    config: ModelConfig,
    rows: torch.Tensor,  # [N * k, D] sorted by expert
    gates: torch.Tensor,  # [N * k]
    sizes: torch.Tensor,  # [experts]
) -> torch.Tensor:
    ends = sizes.cumsum(0).int()

    def product(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch._grouped_mm(x, weights[f"{prefix}experts.{name}"].transpose(1, 2), offs=ends)

    inner = gated(product(rows, "w1"), product(rows, "w3"), config.swiglu_limit)
    return product((inner * gates.unsqueeze(1)).to(rows.dtype), "w2")


def _shared(weights: Weights, prefix: str, config: ModelConfig, x: torch.Tensor) -> torch.Tensor:
    name = f"{prefix}shared_experts."
    gate, up = (linear(x, weights[f"{name}{matrix}.weight"]) for matrix in ("w1", "w3"))
    inner = gated(gate, up, config.swiglu_limit).to(x.dtype)
    return linear(inner, weights[f"{name}w2.weight"]).float()


def gated(gate: torch.Tensor, up: torch.Tensor, limit: float) -> torch.Tensor:
    """silu(min(gate, limit)) * clamp(up, -limit, limit), float32."""
    return silu(gate.float().clamp(max=limit)) * up.float().clamp(-limit, limit)
