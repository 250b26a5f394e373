"""Rotations against complex products in float64: within 2^-22 of a pair's length in float32, and
half a unit in the last place in bfloat16 (a whole one under the interpreter, which cuts)."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import triton as kernels
from worker.model.rope import angles, frequencies
from worker.model.tiny import TINY


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turns(tokens: int, pairs: int, device: str) -> torch.Tensor:
    return torch.polar(torch.ones(tokens, pairs), 9 * noise(tokens, pairs, seed=1)).to(device)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 5),
    st.sampled_from([(), (1,), (3,), (20,), (2, 3)]),
    st.sampled_from([(1, 2), (3, 8), (16, 64), (32, 96), (16, 32)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.booleans(),
)
def test_the_last_channels_of_every_head_turn(
    device: str,
    tokens: int,
    heads: tuple[int, ...],
    pairs_and_width: tuple[int, int],
    dtype: torch.dtype,
    conjugate: bool,
) -> None:
    pairs, width = pairs_and_width
    x = noise(tokens, *heads, width).to(device, dtype)
    turn = turns(tokens, pairs, device)
    turn = turn.conj() if conjugate else turn
    before = x.clone()
    kernels.rotate_(x, turn)
    assert torch.equal(x[..., : width - 2 * pairs], before[..., : width - 2 * pairs])
    old = torch.view_as_complex(before[..., width - 2 * pairs :].double().unflatten(-1, (-1, 2)))
    exact = old * turn.to(torch.complex128).view(tokens, *(1 for _ in heads), pairs)
    bound = 0.0
    if dtype == torch.bfloat16:
        bound = 2.0**-8 if device == "cuda" else 2.0**-7
    turned = x[..., width - 2 * pairs :].double()
    error = (turned - torch.view_as_real(exact).flatten(-2)).abs()
    length = old.abs().repeat_interleave(2, -1)
    assert (error <= (bound + 2.0**-22) * length).all()


def test_a_part_of_a_wider_tensor_turns_in_place(device: str) -> None:
    wide = noise(4, 3, 40).to(device)
    before = wide.clone()
    turn = turns(4, 4, device)
    kernels.rotate_(wide[:, 1:, :24], turn)
    kernels.rotate_(wide[:, 1:, :24], turn.conj())
    torch.testing.assert_close(wide, before)
    assert torch.equal(wide[:, 0], before[:, 0])


def test_positions_near_a_million_turn_by_the_model_s_own_angles(device: str) -> None:
    positions = torch.tensor([0, 1, 127, 128, 1_048_575])
    turn = angles(frequencies(TINY, compressed=True, device="cpu"), positions).to(device)
    x = noise(5, 4, 64).to(device)
    lengths = torch.view_as_complex(x[..., -32:].unflatten(-1, (-1, 2))).abs()
    kernels.rotate_(x, turn)
    turned = torch.view_as_complex(x[..., -32:].unflatten(-1, (-1, 2)))
    torch.testing.assert_close(turned.abs(), lengths)
