import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.kernels.reference.quantise import quantise_activation, quantise_entry_, quantise_index

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def hadamard(width: int) -> torch.Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < width:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / width**0.5


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@given(st.floats(2.0**-9, 448, width=32))
def test_activations_keep_three_mantissa_bits(value: float) -> None:
    x = torch.tensor([[value, 448.0]])  # the second fixes the block's scale at one
    rounded = quantise_activation(x)[0, 0].item()
    assert rounded == torch.tensor(value).to(torch.float8_e4m3fn).float().item()


def test_each_block_of_128_channels_has_its_own_scale() -> None:
    x = torch.cat((torch.full((1, 128), 1e-3), torch.full((1, 72), 1e3)), 1)
    error = (quantise_activation(x) - x).abs() / x
    assert error.max() < 2**-4


def test_scales_are_powers_of_two() -> None:
    x = noise(4, 256)
    torch.testing.assert_close(quantise_activation(x * 8), quantise_activation(x) * 8)


@given(st.integers(-12, 20), st.sampled_from([1.0, 1.0 + 2.0**-23]))
def test_scales_are_the_smallest_without_overflow(exponent: int, above: float) -> None:
    x = torch.tensor([[448.0 * above * 2.0**exponent, 2.0 ** (exponent - 9)]])
    smallest_step = 2.0**exponent * 2.0**-9 * (1 if above == 1.0 else 2)
    assert quantise_activation(x)[0, 1].item() == (smallest_step if above == 1.0 else 0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    x = torch.ones(1, 32)
    x[0, 3] = bad
    assert not quantise_activation(x).isfinite().all()
    assert not quantise_index(x).isfinite().all()


def test_zeros_stay_zeros() -> None:
    assert not quantise_activation(torch.zeros(1, 128)).any()
    assert not quantise_index(torch.zeros(1, 32)).any()


def test_entries_keep_their_rotated_channels_in_bfloat16() -> None:
    x = noise(3, 96)
    rounded = x.clone()
    quantise_entry_(rounded, rope_dims=16)
    assert torch.equal(rounded[:, -16:], x[:, -16:].bfloat16().float())
    assert torch.equal(rounded[:, :64], quantise_activation(x[:, :64]))
    assert torch.equal(rounded[:, 64:80], quantise_activation(x[:, 64:80]))


@pytest.mark.parametrize("width", [32, 128])
def test_index_rows_are_rotated_then_rounded_to_the_nearest_e2m1(width: int) -> None:
    x = noise(5, width)
    rotated = (x.double() @ hadamard(width)).view(5, -1, 32)
    scale = torch.exp2(torch.ceil(torch.log2(rotated.abs().amax(-1, keepdim=True) / 6)))
    grid = torch.tensor([*E2M1, *(-v for v in E2M1)], dtype=torch.float64)
    nearest = grid[(rotated.unsqueeze(-1) / scale.unsqueeze(-1) - grid).abs().argmin(-1)] * scale
    torch.testing.assert_close(quantise_index(x).double(), nearest.view(5, width))


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0)],
)
def test_ties_go_to_the_even_code(value: float, rounded: float) -> None:
    row = torch.zeros(64)  # a width whose transform is exact
    row[0], row[1] = 6.0, value
    before_rotation = (row.double() @ hadamard(64)).float()  # the transform is its own inverse
    assert quantise_index(before_rotation.unsqueeze(0))[0, 1].item() == rounded


def test_the_dtype_is_kept() -> None:
    assert quantise_activation(noise(2, 128).bfloat16()).dtype == torch.bfloat16
    assert quantise_index(noise(2, 32).bfloat16()).dtype == torch.bfloat16
