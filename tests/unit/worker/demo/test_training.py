"""A run learns, and is the same run after it was killed."""

from pathlib import Path

import pytest
from support.demo_toys import TOY, fresh, trained

from worker.demo.loop import Progress, fixed, share_of_rate
from worker.demo.state import TrainingState, load, save
from worker.errors import ConfigError


class Killed(Exception):
    """Stands for the end of the process."""


def bits(state: TrainingState) -> dict[str, bytes]:
    return {n: t.detach().numpy().tobytes() for n, t in state.tensors.items()}


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    straight, broken = fresh(), fresh()
    fixed(straight, TOY, 4)
    fixed(broken, TOY, 4)
    trained(straight)

    def killed_after_two(progress: Progress) -> None:
        if progress.step == 2:
            save(broken, tmp_path)
            raise Killed

    with pytest.raises(Killed):
        trained(broken, killed_after_two)
    resumed = load(tmp_path, "cpu")
    assert resumed.step == 2
    trained(resumed)
    assert bits(resumed) == bits(straight)
    assert bits(fresh()) != bits(straight)


def test_losses_fall() -> None:
    state = fresh(seed=1)
    fixed(state, TOY, 20)
    told = trained(state)
    assert told[-1].loss < told[0].loss - 1.5, told
    assert told[-1].draft < told[0].draft - 0.2


def test_rates_rise_stay_and_fall_to_nothing() -> None:
    state = fresh()
    fixed(state, TOY, 100)
    shares = []
    for state.step in (0, 4, 40, 70, 85, 99):
        shares.append(share_of_rate(state, TOY))
    assert shares == pytest.approx([0.2, 1, 1, 1, 0.5, 1 / 30])


def test_nothing_is_resumed_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        load(tmp_path, "cpu")
