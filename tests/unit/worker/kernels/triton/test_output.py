"""The output's projection against float64: within 2^-20 of the sum of magnitudes in float32."""

import pytest
import torch

from worker.kernels import triton as kernels


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens", [0, 1, 5])
@pytest.mark.parametrize(("heads", "groups", "width", "pairs"), [(4, 2, 32, 8), (6, 3, 100, 5)])
def test_heads_are_turned_back_and_mixed_group_by_group(
    device: str, tokens: int, heads: int, groups: int, width: int, pairs: int
) -> None:
    out, weight = noise(tokens, heads, width), noise(groups, 7, heads // groups * width, seed=1)
    radians = 3 * noise(tokens, pairs)
    angles = torch.polar(torch.ones_like(radians), radians)
    mixed = kernels.project_output(out.to(device, copy=True), angles.to(device), weight.to(device))
    turned = out.double()
    last = turned[..., width - 2 * pairs :].reshape(tokens, heads, pairs, 2)
    back = torch.view_as_complex(last) * angles.conj().to(torch.complex128).unsqueeze(1)
    turned[..., width - 2 * pairs :] = torch.view_as_real(back).flatten(2)
    grouped = turned.view(tokens, groups, weight.shape[2])
    exact = torch.einsum("tgi,goi->tgo", grouped, weight.double()).flatten(1)
    bound = 2.0**-20 * float(grouped.abs().sum(2).amax() * weight.abs().amax()) if tokens else 0.0
    assert mixed.is_contiguous()
    torch.testing.assert_close(mixed.double().cpu(), exact, rtol=0, atol=bound)
