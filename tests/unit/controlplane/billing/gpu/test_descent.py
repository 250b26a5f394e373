"""Warnings of sinking funds, against an oracle that keeps the whole story."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.billing.gpu.descent import Funds, Level, State, Step, look

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KEEP = timedelta(hours=72)
HOUR_P = 1000  # what everything costs an hour


def funds(hours: float, burn_p: int = HOUR_P, *, volumes: bool = True) -> Funds:
    return Funds(round(hours * HOUR_P), 0, burn_p, has_volumes=volumes)


class Watched:
    """One tenant's story, an hour a look unless told."""

    def __init__(self) -> None:
        self.state: State = State("enough", 0)
        self.now = NOW

    def look(self, funds: Funds, *, after: timedelta = timedelta(hours=1)) -> Step:
        self.now += after
        step = look(self.state, funds, self.now, keep=KEEP)
        self.state = step.state
        return step


@pytest.mark.parametrize(
    ("hours", "level"),
    [(24, "enough"), (23.99, "day"), (1, "day"), (0.999, "hour"), (0.017, "hour"), (0, "empty")],
)
def test_a_level_is_what_is_left_at_the_present_burn(hours: float, level: Level) -> None:
    assert funds(hours).level == level


def test_time_that_is_not_charged_yet_counts_as_spent() -> None:
    assert Funds(24 * HOUR_P, 1, HOUR_P, has_volumes=False).level == "day"


def test_a_descent_is_told_once_at_each_level() -> None:
    watched = Watched()
    told = [watched.look(funds(hours)).warn for hours in (30, 23, 20, 2, 0.9, 0.5, 0, 0)]
    assert told == [None, "day", None, None, "hour", None, "empty", None]


def test_what_stops_and_starts_does_not_warn_again() -> None:
    watched = Watched()
    burns = [watched.look(funds(20, burn_p)).warn for burn_p in (1000, 10, 1000, 10, 1000)]
    assert burns == ["day", None, None, None, None]


def test_a_top_up_arms_the_warning_again() -> None:
    watched = Watched()
    told = [watched.look(funds(hours)).warn for hours in (20, 100, 20)]
    assert told == ["day", None, "day"]


def test_volumes_are_announced_a_day_before_their_end_and_then_go() -> None:
    watched = Watched()
    assert watched.look(funds(0)).warn == "empty"
    assert not watched.look(funds(0), after=timedelta(hours=47)).announce_expiry
    assert watched.look(funds(0), after=timedelta(hours=1)).announce_expiry
    assert not watched.look(funds(0), after=timedelta(hours=23)).expire
    assert watched.look(funds(0), after=timedelta(hours=1)).expire


def test_volumes_have_their_day_of_notice_even_if_nobody_looked_for_weeks() -> None:
    watched = Watched()
    watched.look(funds(0))
    late = watched.look(funds(0), after=timedelta(days=30))
    assert (late.announce_expiry, late.expire) == (True, False)
    assert not watched.look(funds(0), after=timedelta(hours=23)).expire
    assert watched.look(funds(0), after=timedelta(hours=1)).expire


def test_a_top_up_keeps_the_volumes() -> None:
    watched = Watched()
    watched.look(funds(0))
    watched.look(funds(0), after=timedelta(hours=60))
    watched.look(funds(2))
    watched.look(funds(0), after=timedelta(hours=60))
    assert watched.state.empty_since == watched.now
    assert not watched.look(funds(0), after=timedelta(hours=24)).expire


@dataclass
class Oracle:
    """Every look so far, as (level's depth, money came in before it)."""

    story: list[tuple[int, bool]] = field(default_factory=list)

    def warns(self, depth: int, money_came: bool) -> bool:
        """Replay everything: deeper than ever since the last time that money helped."""
        self.story.append((depth, money_came))
        told, money, warned = 0, False, False
        for at, came in self.story:
            money = money or came
            warned = at > told
            if at > told or (at < told and money):
                told, money = at, False
        return warned


events = st.one_of(
    st.tuples(st.just("spend"), st.integers(0, 30_000)),
    st.tuples(st.just("top_up"), st.integers(1, 60_000)),
    st.tuples(st.just("burn"), st.sampled_from([0, 1, 500, 1000, 4000])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=25))
def test_any_story_warns_as_the_oracle_says(
    story: list[tuple[Literal["spend", "top_up", "burn"], int]],
) -> None:
    watched, oracle = Watched(), Oracle()
    funds_p, burn_p = 40_000, 1000
    watched.state = State("enough", funds_p)
    for event, amount in story:
        if event == "burn":
            burn_p = amount
        else:
            funds_p += amount if event == "top_up" else -min(funds_p, amount)
        seen = Funds(funds_p, 0, burn_p, has_volumes=False)
        depth = ["enough", "day", "hour", "empty"].index(seen.level)
        step = watched.look(seen)
        assert (step.warn is not None) == oracle.warns(depth, event == "top_up")
        assert step.warn in (None, seen.level)
