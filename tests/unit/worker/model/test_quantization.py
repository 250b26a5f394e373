import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.model.quantization import (
    dequantise_fp4,
    dequantise_fp8,
    quantise_fp4,
    quantise_fp8,
    scales,
)

CODES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]


@given(st.integers(0, 254))
def test_scale_bytes_are_exponents_not_numbers(byte: int) -> None:
    stored = torch.tensor([[byte]], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    assert scales(stored).item() == 2.0 ** (byte - 127)


def test_scale_byte_255_is_nan() -> None:
    assert scales(torch.tensor([255], dtype=torch.uint8)).isnan()


def test_low_nibble_is_the_even_input() -> None:
    bytes_ = [low | (15 - low) << 4 for low in range(16)]
    packed = torch.tensor([bytes_], dtype=torch.uint8).view(torch.int8)
    scale = torch.tensor([[128]], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    expected = [2 * v for low in range(16) for v in (CODES[low], CODES[15 - low])]
    assert dequantise_fp4(packed, scale).tolist() == [expected]


def test_fp4_scales_cover_32_inputs_of_one_row() -> None:
    packed = torch.full((2, 32), 0x22, dtype=torch.uint8).view(torch.int8)  # all ones
    scale = torch.tensor([[127, 128], [129, 130]], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    expected = torch.tensor([[1.0, 2.0], [4.0, 8.0]]).repeat_interleave(32, 1)
    assert torch.equal(dequantise_fp4(packed, scale), expected)


def test_fp8_scales_cover_blocks_with_ragged_ends() -> None:
    weight = torch.ones(130, 257).to(torch.float8_e4m3fn)
    bytes_ = torch.tensor([[127, 128, 129], [130, 131, 132]], dtype=torch.uint8)
    values = dequantise_fp8(weight, bytes_.view(torch.float8_e8m0fnu))
    assert values.shape == (130, 257)
    corners = [values[r, c].item() for r in (127, 128) for c in (127, 128, 256)]
    assert corners == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("magnitude", [1e-20, 1e-3, 1.0, 1e4])
def test_fp8_round_trip_is_within_half_a_step(magnitude: float) -> None:
    weight = torch.randn(200, 150, generator=torch.Generator().manual_seed(0)) * magnitude
    stored, scale = quantise_fp8(weight)
    error = (dequantise_fp8(stored, scale) - weight).abs()
    spacing = weight.abs() / 8 + weight.abs().max() * 2.0**-17  # 3 mantissa bits, then subnormals
    assert (error <= spacing / 2).all()


def test_every_dequantised_value_is_exact_in_bfloat16() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 256)
    scale = torch.full((1, 2), 120, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    fp8 = dequantise_fp8(every.view(torch.float8_e4m3fn), scale).nan_to_num()
    fp4 = dequantise_fp4(every.view(torch.int8), scale.repeat(1, 8))
    assert torch.equal(fp8, fp8.bfloat16().float())
    assert torch.equal(fp4, fp4.bfloat16().float())


@pytest.mark.parametrize("magnitude", [1e-20, 1e-3, 1.0, 1e4])
def test_fp4_round_trip_is_within_half_a_step(magnitude: float) -> None:
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(0)) * magnitude
    packed, scale = quantise_fp4(weight)
    steps = (dequantise_fp4(packed, scale) - weight).abs() / scales(scale).repeat_interleave(32, 1)
    size = weight.abs() / scales(scale).repeat_interleave(32, 1)
    assert (size <= 6).all()
    half = torch.where(size < 2, 0.25, torch.where(size < 4, 0.5, 1.0))
    assert (steps <= half * (1 + 1e-6)).all()


def test_numbers_of_fp4_survive_it() -> None:
    weight = torch.tensor([[0.25 * code for code in CODES] * 2, CODES * 2])
    packed, scale = quantise_fp4(weight)
    assert torch.equal(dequantise_fp4(packed, scale), weight)
    assert torch.equal(quantise_fp4(dequantise_fp4(packed, scale))[0], packed)
