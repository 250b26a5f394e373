from dataclasses import replace

import torch
from support.v4 import SMALL

from worker.model.moe import Router

CONFIG = replace(SMALL, n_routed_experts=4, num_experts_per_tok=2, routed_scaling_factor=1.5)


def router(gate: list[float], bias: list[float]) -> Router:
    weights = {"gate.weight": torch.tensor(gate).unsqueeze(1), "gate.bias": torch.tensor(bias)}
    return Router(weights, "", CONFIG)


def test_equal_scores_are_decided_for_the_lowest_expert() -> None:
    chosen, weights = router([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0])(
        torch.ones(1, 1), torch.zeros(1, dtype=torch.long)
    )
    assert chosen.tolist() == [[0, 1]]
    assert weights.tolist() == [[0.75, 0.75]]


def test_the_bias_steers_the_choice_and_not_the_weight() -> None:
    chosen, weights = router([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 9.0])(
        torch.ones(1, 1), torch.zeros(1, dtype=torch.long)
    )
    assert chosen.tolist() == [[3, 2]]
    assert weights.tolist() == [[0.75, 0.75]]


def test_scores_that_all_round_to_zero_weigh_nothing() -> None:
    _, weights = router([-200.0, -200.0, -200.0, -200.0], [0.0, 0.0, 0.0, 0.0])(
        torch.ones(1, 1), torch.zeros(1, dtype=torch.long)
    )
    assert weights.tolist() == [[0.0, 0.0]]
