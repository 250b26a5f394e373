"""Roundings bit for bit against the reference: exact arithmetic, in one order."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels

lenient = settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Magnitudes from 2**-40 to 2**40, zeros of both signs, and numbers at which scales change."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g) * torch.exp2(torch.randn(*shape[:-1], 1, generator=g) * 9)
    x = torch.where(torch.rand(shape, generator=g) < 0.1, x * 0.0, x)
    edge = torch.tensor([448.0, 449.0, 447.9, 6.0, 1.75, 1.7500001, 1e-4])
    edges = edge[torch.randint(0, len(edge), shape, generator=g)]
    return torch.where(torch.rand(shape, generator=g) < 0.1, edges, x)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@lenient
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=2),
    st.sampled_from([1, 32, 100, 128, 200, 512, 4096, 5000]),
    dtypes,
    st.integers(0, 1000),
)
def test_activations_are_rounded_alike(
    device: str, rows: list[int], width: int, dtype: torch.dtype, seed: int
) -> None:
    x = noise(*rows, width, seed=seed).to(dtype)
    same(kernels.quantise_activation(x.to(device)), reference.quantise_activation(x))


@lenient
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=2),
    st.sampled_from([1, 2, 32, 64, 128, 2048]),
    dtypes,
    st.integers(0, 1000),
)
def test_index_keys_are_transformed_and_rounded_alike(
    device: str, rows: list[int], width: int, dtype: torch.dtype, seed: int
) -> None:
    x = noise(*rows, width, seed=seed).to(dtype)
    same(kernels.quantise_index(x.to(device)), reference.quantise_index(x))


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_in_its_block(device: str, bad: float) -> None:
    x = noise(3, 512)
    x[1, 200] = bad
    same(kernels.quantise_activation(x.to(device)), reference.quantise_activation(x))
    same(kernels.quantise_index(x.to(device)), reference.quantise_index(x))


def test_every_e4m3_number_and_every_middle_between_two_is_rounded_alike(device: str) -> None:
    codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (codes[1:] + codes[:-1]) / 2
    near = torch.cat((middles, middles * (1 - 2.0**-20), middles * (1 + 2.0**-20), codes))
    x = torch.cat((near, -near))
    x = torch.nn.functional.pad(x, (0, -len(x) % 127)).view(-1, 127)
    x = torch.cat((x, torch.full((len(x), 1), 448.0)), 1)  # the scale is one
    assert torch.equal(reference.quantise_activation(x)[:, -1], x[:, -1])
    same(kernels.quantise_activation(x.to(device)), reference.quantise_activation(x))
