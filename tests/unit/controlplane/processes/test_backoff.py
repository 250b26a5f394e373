"""The restart policy."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.processes.backoff import (
    FIRST_SECONDS,
    HEALTHY_SECONDS,
    LONGEST_SECONDS,
    deaths_in_a_row,
    restart_delay_seconds,
)


@given(st.integers(1, 10**6))
def test_delays_grow_and_stay_bounded(deaths: int) -> None:
    delay = restart_delay_seconds(deaths)
    assert FIRST_SECONDS <= delay <= restart_delay_seconds(deaths + 1) <= LONGEST_SECONDS


def test_the_first_delay_is_short() -> None:
    assert restart_delay_seconds(1) == FIRST_SECONDS


@given(st.integers(0, 10**6))
def test_a_long_life_forgives(deaths: int) -> None:
    assert deaths_in_a_row(deaths, HEALTHY_SECONDS) == 1
    assert deaths_in_a_row(deaths, HEALTHY_SECONDS / 2) == deaths + 1
