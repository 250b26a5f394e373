"""Root-mean-square norms against float64: within 2^-21 in float32 and half a unit in the last place
in bfloat16 (a whole one under the interpreter, which cuts where a GPU rounds)."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import triton as kernels


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    normed = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return normed if weight is None else normed * weight.double()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=2),
    st.sampled_from([1, 32, 100, 512, 1024, 4096, 5120]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([None, torch.float32, torch.bfloat16]),
    st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_rows_of_any_shape_are_normalised(
    device: str,
    rows: list[int],
    width: int,
    dtype: torch.dtype,
    weight_dtype: torch.dtype | None,
    size: float,
) -> None:
    x = (size * noise(*rows, width)).to(device, dtype)
    weight = None if weight_dtype is None else noise(width, seed=1).to(device, weight_dtype)
    normed = kernels.rms_norm(x, weight, 1e-6)
    assert (normed.shape, normed.dtype) == (x.shape, dtype)
    bound = 2.0**-21
    if dtype == torch.bfloat16:
        bound += 2.0**-8 if device == "cuda" else 2.0**-7
    torch.testing.assert_close(normed.double(), exact(x, weight), rtol=bound, atol=1e-30)


def test_a_part_of_a_wider_tensor_is_normalised_alone(device: str) -> None:
    x = noise(5, 96).to(device)
    normed = kernels.rms_norm(x[:, 16:80], None, 1e-6)
    torch.testing.assert_close(normed.double(), exact(x[:, 16:80], None), rtol=2.0**-21, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of inf * 0
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_row(device: str, bad: float) -> None:
    x = noise(40, 128).to(device)
    x[7, 3] = bad
    normed = kernels.rms_norm(x, None, 1e-6)
    assert normed[7].isnan().any()
    assert normed[:7].isfinite().all()
    assert normed[8:].isfinite().all()
