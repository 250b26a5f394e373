import torch

from worker.demo.optimiser import OptimiserState, orthogonal, step


def test_turned_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert float(values.min()) > 0.4
    assert float(values.max()) < 1.5


def test_updates_have_the_rates_size() -> None:
    tensors = {
        "layers.0.attn.wq_a.weight": torch.zeros(32, 64),
        "norm.weight": torch.ones(64),
        "layers.3.ffn.gate.bias": torch.zeros(4),
    }
    before = {name: t.clone() for name, t in tensors.items()}
    for name, tensor in list(tensors.items())[:2]:
        tensor.grad = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
    step(OptimiserState(), tensors, matrix_rate=0.01, rate=0.003, clip=1.0)
    sizes = {n: float((t - before[n]).square().mean().sqrt()) for n, t in tensors.items()}
    assert 0.006 < sizes["layers.0.attn.wq_a.weight"] < 0.012
    assert 0.0029 < sizes["norm.weight"] < 0.0031
    assert sizes["layers.3.ffn.gate.bias"] == 0
    assert all(t.grad is None for t in tensors.values())
