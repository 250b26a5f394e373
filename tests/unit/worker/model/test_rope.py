import math
from dataclasses import replace

import torch
from support.v4 import FLASH

from worker.model.rope import angles, frequencies


def test_window_layers_have_plain_frequencies() -> None:
    plain = frequencies(FLASH, compressed=False, device="cpu")
    expected = [10_000 ** (-pair / 32) for pair in range(32)]
    torch.testing.assert_close(plain, torch.tensor(expected))


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones() -> None:
    config = FLASH
    extended = frequencies(config, compressed=True, device="cpu")
    unscaled = frequencies(replace(config, rope_scaling=None), compressed=True, device="cpu")
    # 32 turns in 65,536 positions end at pair 15.4, one turn at pair 24.7: a ramp from 15 to 25.
    ratio = (extended / unscaled).tolist()
    assert ratio[:16] == [1.0] * 16
    assert all(math.isclose(r, 1 / 16) for r in ratio[25:])
    assert ratio[15:26] == sorted(ratio[15:26], reverse=True)


def test_angles_are_unit_rotations_without_attention_scaling() -> None:
    turns = angles(torch.tensor([1.0, 0.25]), torch.tensor([0, 3]))
    expected = torch.tensor([[0.0, 0.0], [3.0, 0.75]])
    torch.testing.assert_close(turns, torch.complex(expected.cos(), expected.sin()))
