from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.crd.inference import DAYS, ScheduledMinimum, Window
from controlplane.operator.deployment.windows import (
    UnknownTimezone,
    is_open,
    next_change,
    scheduled_minimum,
)

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


OFFICE = Window(days=["mon", "tue", "wed", "thu", "fri"], start="08:00", end="18:00")
NIGHT = Window(days=["fri"], start="22:00", end="06:00", timezone=BERLIN)


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], at("2026-11-22T03:00"))
    assert next_change([], 0.0) is None


@pytest.mark.parametrize(
    ("moment", "opened"),
    [
        ("2026-11-23T07:59:59", False),
        ("2026-11-23T08:00:00", True),
        ("2026-11-23T17:59:59", True),
        ("2026-11-23T18:00:00", False),
        ("2026-11-22T12:00:00", False),  # a Sunday
    ],
)
def test_a_window_holds_from_its_start_until_before_its_end(moment: str, opened: bool) -> None:
    assert is_open([OFFICE], at(moment)) is opened


@pytest.mark.parametrize(
    ("moment", "opened"),
    [
        ("2026-11-20T21:59", False),
        ("2026-11-20T23:30", True),
        ("2026-11-21T05:59", True),
        ("2026-11-21T06:00", False),
        ("2026-11-21T23:30", False),
    ],
)
def test_a_window_that_ends_before_it_starts_ends_on_the_next_day(
    moment: str, opened: bool
) -> None:
    assert is_open([NIGHT], at(moment, BERLIN)) is opened


def test_equal_start_and_end_are_twenty_four_hours() -> None:
    day = Window(days=["mon"], start="09:00", end="09:00")
    assert is_open([day], at("2026-11-23T09:00"))
    assert is_open([day], at("2026-11-24T08:59"))
    assert not is_open([day], at("2026-11-24T09:00"))


def test_a_window_over_the_change_to_summer_time_is_an_hour_shorter() -> None:
    night = Window(days=["sat"], start="22:00", end="06:00", timezone=BERLIN)
    start, end = at("2026-03-28T22:00", BERLIN), at("2026-03-29T06:00", BERLIN)
    assert end - start == 7 * 3600
    assert next_change([night], start) == end


def test_a_window_in_the_hour_that_is_skipped_keeps_its_length() -> None:
    skipped = Window(days=["sun"], start="02:15", end="02:45", timezone=BERLIN)
    start = at("2026-03-29T01:15:00")  # 03:15 summer time
    assert not is_open([skipped], start - 1)
    assert is_open([skipped], start)
    assert next_change([skipped], start) == start + 1800


def test_a_window_that_ends_in_the_hour_that_comes_twice_does_not_open_again() -> None:
    night = Window(days=["sat"], start="22:00", end="02:30", timezone=BERLIN)
    last = at("2026-10-25T02:30", BERLIN, fold=1)
    assert is_open([night], at("2026-10-25T02:30", BERLIN, fold=0))
    assert is_open([night], last - 1)
    assert not is_open([night], last)
    assert next_change([night], last) == at("2026-10-31T22:00", BERLIN)


def test_the_greatest_of_the_minimums_that_hold_counts() -> None:
    schedules = [
        ScheduledMinimum(min=2, start="08:00", end="18:00"),
        ScheduledMinimum(min=5, start="12:00", end="13:00"),
    ]
    assert scheduled_minimum(schedules, at("2026-11-23T09:00")) == 2
    assert scheduled_minimum(schedules, at("2026-11-23T12:30")) == 5
    assert scheduled_minimum(schedules, at("2026-11-23T20:00")) == 0


def test_an_unknown_zone_is_a_typed_error() -> None:
    with pytest.raises(UnknownTimezone, match="Mars/Olympus"):
        is_open([Window(timezone="Mars/Olympus")], 0.0)


times = st.builds(lambda h, m: f"{h:02}:{m:02}", st.integers(0, 23), st.integers(0, 59))


@given(
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
    start=times,
    end=times,
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(
        lambda it: it.replace(microsecond=0)
    ),
)
def test_without_clock_changes_a_window_is_what_the_clock_on_the_wall_says(
    days: list[str], start: str, end: str, moment: datetime
) -> None:
    window = Window(days=days, start=start, end=end)
    clock = f"{moment.hour:02}:{moment.minute:02}"
    today = DAYS[moment.weekday()] in days
    yesterday = DAYS[moment.weekday() - 1] in days
    if start < end:
        expected = today and start <= clock < end
    else:
        expected = (today and clock >= start) or (yesterday and clock < end)
    now = moment.replace(tzinfo=UTC).timestamp()
    assert is_open([window], now) is expected
    change = next_change([window], now)
    assert change is not None
    assert is_open([window], change - 1) is expected or change - now < 1
