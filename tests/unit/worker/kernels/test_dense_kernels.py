"""Normalisation, rotation, hyper-connections, pooling and experts against their definitions."""

import math

import torch

from worker.kernels import reference
from worker.kernels.reference.pooling import pool_entries


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm() -> None:
    x, weight = noise(3, 8), noise(8, seed=1)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    torch.testing.assert_close(reference.rms_norm(x, weight, 1e-6), expected)


def test_rotation_turns_pairs_of_the_last_channels() -> None:
    x = noise(2, 3, 6)
    turned = x.clone()
    angle = torch.tensor([[0.3, 1.1], [2.0, -0.4]])
    reference.rotate_(turned, torch.polar(torch.ones(2, 2), angle))
    assert torch.equal(turned[..., :2], x[..., :2])
    for t, pair in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        a, b = x[t, 1, 2 + 2 * pair], x[t, 1, 3 + 2 * pair]
        cos, sin = math.cos(angle[t, pair]), math.sin(angle[t, pair])
        torch.testing.assert_close(turned[t, 1, 2 + 2 * pair], a * cos - b * sin)
        torch.testing.assert_close(turned[t, 1, 3 + 2 * pair], a * sin + b * cos)


def test_conjugate_angles_undo_a_rotation() -> None:
    x = noise(4, 2, 8)
    turned, angles = x.clone(), torch.polar(torch.ones(4, 3), noise(4, 3))
    reference.rotate_(turned, angles)
    reference.rotate_(turned, angles.conj())
    torch.testing.assert_close(turned, x)


def test_hyper_connection_matrices_are_doubly_stochastic() -> None:
    streams = noise(5, 4, 16)
    _, post, comb = reference.hyper_connection_in(
        streams, 0.1 * noise(24, 64), noise(24), noise(3), iterations=20, eps=1e-6, norm_eps=1e-6
    )
    ones = torch.ones(5, 4)
    torch.testing.assert_close(comb.sum(1), ones, atol=1e-4, rtol=0)
    torch.testing.assert_close(comb.sum(2), ones, atol=1e-3, rtol=0)
    assert ((post > 0) & (post < 2)).all()


def test_hyper_connection_mixes_over_the_first_index() -> None:
    y, streams, post, comb = noise(1, 6), noise(1, 3, 6), noise(1, 3), noise(1, 3, 3)
    out = reference.hyper_connection_out(y, streams, post, comb)
    for k in range(3):
        expected = post[0, k] * y[0] + sum(comb[0, j, k] * streams[0, j] for j in range(3))
        torch.testing.assert_close(out[0, k], expected)


def test_hyper_connection_next_is_out_and_then_in() -> None:
    y, streams, post, comb = noise(2, 8), noise(2, 4, 8), noise(2, 4), noise(2, 4, 4)
    weights = noise(24, 32), noise(24), noise(3)
    between = reference.hyper_connection_out(y, streams, post, comb)
    opened = reference.hyper_connection_in(
        between, *weights, iterations=20, eps=1e-6, norm_eps=1e-6
    )
    both = reference.hyper_connection_next(
        y, streams, post, comb, *weights, iterations=20, eps=1e-6, norm_eps=1e-6
    )
    assert all(torch.equal(a, b) for a, b in zip(both, (between, *opened), strict=True))


def test_pooling_weighs_each_channel_by_its_own_softmax() -> None:
    rows = noise(2, 5, 2, 3)
    rows[0, 1, 1] = -torch.inf
    pooled = pool_entries(rows)
    weight = rows[0, :, 1, 2].exp()
    torch.testing.assert_close(pooled[0, 2], (weight * rows[0, :, 0, 2]).sum() / weight.sum())


def test_experts_are_weighted_and_clamped() -> None:
    x, gate_up, down = 4 * noise(7, 8), noise(3, 10, 8), noise(3, 8, 5)
    chosen = torch.tensor([[0, 1], [2, 0], [2, 1], [0, 1], [1, 0], [0, 2], [0, 1]])
    weights = noise(7, 2).abs()
    out = reference.grouped_experts(x, gate_up, down, chosen, weights, limit=2.0, quantise=False)
    for t in range(7):
        expected = torch.zeros(8)
        for expert, weight in zip(chosen[t].tolist(), weights[t], strict=True):
            gate, up = (gate_up[expert] @ x[t]).split(5)
            gate, up = gate.clamp(max=2.0), up.clamp(-2.0, 2.0)
            expected += weight * (down[expert] @ (gate * torch.sigmoid(gate) * up))
        torch.testing.assert_close(out[t], expected)


def test_an_expert_that_no_token_chose_is_never_run() -> None:
    down = noise(2, 4, 3)
    down[1] = torch.nan
    out = reference.grouped_experts(
        noise(3, 4),
        noise(2, 6, 4),
        down,
        torch.zeros(3, 1, dtype=torch.long),
        torch.ones(3, 1),
        limit=10.0,
        quantise=False,
    )
    assert torch.isfinite(out).all()
