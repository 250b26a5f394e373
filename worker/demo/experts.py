"""The mixture of experts, differentiable: tokens sorted by expert, one grouped product per matrix.

Nothing waits for the device: sizes of the groups stay there.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import linear, silu, softplus

from worker.config import ModelConfig
from worker.demo.fused import fused
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
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
    rows = x.unsqueeze(1).expand(-1, k, -1).flatten(0, 1)
    rows, mine = (permuted(t, order, inverse) for t in (rows, gates.flatten()))
    out = permuted(_routed(weights, prefix, config, rows, mine, sizes), inverse, order)
    shared = _shared(weights, prefix, config, x)
    return _summed(out.view(len(x), k, -1), shared), sizes.float() / len(flat)


def permuted(x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """x[order]; its gradient is a permutation too, so nothing is added up in any order."""
    result: torch.Tensor = _Permutation.apply(x, order, inverse)  # type: ignore[no-untyped-call]
    return result


class _Permutation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse), None, None


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

    inner = _weighted(product(rows, "w1"), product(rows, "w3"), gates, config.swiglu_limit)
    return product(inner, "w2")


def _shared(weights: Weights, prefix: str, config: ModelConfig, x: torch.Tensor) -> torch.Tensor:
    name = f"{prefix}shared_experts."
    w1, w3, w2 = (weights[f"{name}{matrix}.weight"] for matrix in ("w1", "w3", "w2"))
    return _dense(x, w1, w3, w2, config.swiglu_limit)


@fused
def _summed(routed: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """The sum of [N, k, D] and [N, D], float32."""
    total = shared.float()
    for j in range(routed.shape[1]):
        total = total + routed[:, j].float()
    return total


@fused
def _dense(
    x: torch.Tensor, w1: torch.Tensor, w3: torch.Tensor, w2: torch.Tensor, limit: float
) -> torch.Tensor:
    inner = gated(linear(x, w1), linear(x, w3), limit).to(x.dtype)
    return linear(inner, w2)


@fused
def _weighted(
    gate: torch.Tensor, up: torch.Tensor, weights: torch.Tensor, limit: float
) -> torch.Tensor:
    """The gated [R, I], times each row's weight [R], in the gate's dtype."""
    return (gated(gate, up, limit) * weights.unsqueeze(1)).to(gate.dtype)


def gated(gate: torch.Tensor, up: torch.Tensor, limit: float) -> torch.Tensor:
    """silu(min(gate, limit)) * clamp(up, -limit, limit), float32."""
    return silu(gate.float().clamp(max=limit)) * up.float().clamp(-limit, limit)
