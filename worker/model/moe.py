"""Mixture of experts: the router (by token id in the first layers, learned in the rest), the
routed experts, of which each rank of a group holds a share, and one shared expert."""

import torch
from torch.nn.functional import linear, softplus

from worker.config import ModelConfig
from worker.kernels.load import KernelBackend
from worker.model.linear import Linear
from worker.model.loader import Weights, stacked_experts
from worker.model.numerics import Numerics
from worker.parallel.all_to_all import combine, dispatch
from worker.parallel.groups import ExpertGroup

LEAST_SUM = 1e-20  # of chosen scores, as in transformers: all of them may round to zero


class Router:
    """Chooses experts and their weights, in float32."""

    def __init__(self, weights: Weights, prefix: str, config: ModelConfig) -> None:
        self.gate = weights[f"{prefix}gate.weight"]
        self.table = weights.get(f"{prefix}gate.tid2eid")  # [vocab, k] in hash layers
        self.bias = weights.get(f"{prefix}gate.bias")  # [experts] in learned layers
        self.k = config.num_experts_per_tok
        self.scale = config.routed_scaling_factor

    def __call__(
        self, x: torch.Tensor, token_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Expert ids [T, k] and weights [T, k]. The bias steers the choice, never the weight."""
        scores = softplus(linear(x.float(), self.gate)).sqrt()
        if self.bias is None:
            assert self.table is not None
            chosen = self.table[token_ids]
        else:
            ranked = (scores + self.bias).argsort(dim=-1, descending=True, stable=True)
            chosen = ranked[:, : self.k]
        weights = scores.gather(1, chosen)
        return chosen, weights * (self.scale / (weights.sum(-1, keepdim=True) + LEAST_SUM))


class MixtureOfExperts:
    """One layer's feed-forward over [T, D]. All ranks of `group` call it together, with any T."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        config: ModelConfig,
        numerics: Numerics,
        kernels: KernelBackend,
        group: ExpertGroup,
    ) -> None:
        self.group = group
        self.experts = group.experts(config.n_routed_experts)
        self.router = Router(weights, prefix, config)
        self.gate_up, self.down = stacked_experts(weights, prefix, self.experts)
        shared = f"{prefix}shared_experts."
        quantised = kernels if numerics.quantise else None
        shared_gate_up = torch.cat((weights[f"{shared}w1.weight"], weights[f"{shared}w3.weight"]))
        self.shared_gate_up = Linear(shared_gate_up, quantised)
        self.shared_down = Linear(weights[f"{shared}w2.weight"], quantised)
        self.limit = config.swiglu_limit
        self.quantise = numerics.quantise
        self.kernels = kernels

    def __call__(self, x: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        chosen, weights = self.router(x, token_ids)
        here = dispatch(self.group, x, chosen, weights, self.experts)
        results = self.kernels.grouped_experts(
            here.x,
            self.gate_up,
            self.down,
            here.chosen,
            here.weights,
            limit=self.limit,
            quantise=self.quantise,
        )
        routed = combine(self.group, here, results, tokens=len(x))
        hidden = self.kernels.gated(self.shared_gate_up(x).float(), self.limit).to(x.dtype)
        return (routed + self.shared_down(hidden).float()).to(x.dtype)
