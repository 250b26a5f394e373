"""The softmax over tokens against float64: within 2^-20 of the largest value of a channel."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import triton as kernels


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 4),
    st.sampled_from([1, 4, 8, 20, 128]),
    st.sampled_from([1, 64, 100, 512]),
    st.sampled_from([1e-3, 1.0, 100.0]),
    st.integers(0, 7),
)
def test_tokens_are_weighted_channel_by_channel(
    device: str, entries: int, tokens: int, width: int, sharpness: float, absent: int
) -> None:
    rows = noise(entries, tokens, 2, width)
    rows[:, :, 1] *= sharpness
    rows[:, : min(absent, tokens - 1), 1] = -torch.inf
    values, scores = rows.double().unbind(2)
    exact = (scores.softmax(1) * values).sum(1)
    found = kernels.pool_entries(rows.to(device)).cpu()
    assert found.dtype == torch.float32
    bound = 2.0**-20 * (1 + sharpness) * rows[:, :, 0].abs().amax() if entries else 0.0
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=float(bound))


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")  # the interpreter's, of inf
@pytest.mark.parametrize(("part", "bad"), [(0, torch.nan), (1, torch.nan), (1, torch.inf)])
def test_what_is_not_finite_stays_in_its_channel(device: str, part: int, bad: float) -> None:
    rows = noise(2, 8, 2, 64)
    rows[1, 3, part, 9] = bad
    found = kernels.pool_entries(rows.to(device)).cpu()
    assert found.isfinite().sum() == 2 * 64 - 1
    assert found[1, 9].isnan()
