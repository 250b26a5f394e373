import torch

from worker.kernels import reference
from worker.model.linear import Linear


def test_quantises_activations_only_where_a_backend_is_given() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 140, generator=g), torch.randn(5, 140, generator=g)
    torch.testing.assert_close(Linear(weight, None)(x), x @ weight.T)
    rounded = reference.quantise_activation(x)
    assert not torch.equal(rounded, x)
    torch.testing.assert_close(Linear(weight, reference)(x), rounded @ weight.T)
