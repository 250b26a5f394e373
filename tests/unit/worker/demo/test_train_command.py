"""A run that is asked to stop keeps what it has learned."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.demo_toys import TOY, fresh, trained

from worker.demo.loop import Progress, fixed
from worker.demo.state import load
from worker.demo.train import STOPS, Stopped, keeper


@pytest.fixture
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stopped_run_keeps_the_step_it_has_done(tmp_path: Path, signals: None) -> None:
    state = fresh()
    fixed(state, TOY, 5)
    told = keeper(state, TOY, tmp_path)

    def stopped_in_the_second(progress: Progress) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        told(progress)

    with pytest.raises(Stopped):
        trained(state, stopped_in_the_second)
    assert load(tmp_path, "cpu").step == 2
