"""Calendars of price bands: clocks that are set, windows over midnight, holidays."""

import uuid
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.pricing.calendar import (
    HOLIDAY,
    WEEKDAYS,
    Calendar,
    Window,
    band_at,
    next_change,
    spans,
    words_at,
)

MINUTE = timedelta(minutes=1)
# Clocks set forward and back, by an hour or half of one, at night and at midnight; and never.
ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana")
# Around changes of clocks in these zones in 2026, and around a leap day.
STARTS = (
    datetime(2026, 3, 7, 20, tzinfo=UTC),
    datetime(2026, 3, 28, 20, tzinfo=UTC),
    datetime(2026, 4, 4, 12, tzinfo=UTC),
    datetime(2026, 10, 3, 12, tzinfo=UTC),
    datetime(2026, 10, 24, 20, tzinfo=UTC),
    datetime(2026, 10, 31, 20, tzinfo=UTC),
    datetime(2028, 2, 28, 20, tzinfo=UTC),
)

windows = st.builds(
    Window,
    band=st.sampled_from(["peak", "night"]),
    days=st.frozensets(st.sampled_from([*WEEKDAYS, HOLIDAY]), min_size=1),
    from_minute=st.integers(0, 1439),
    to_minute=st.integers(1, 1440),
).filter(lambda window: window.from_minute != window.to_minute)


def calendar(
    *these: Window, zone: str = "UTC", holidays: frozenset[date] = frozenset()
) -> Calendar:
    return Calendar(uuid.UUID(int=0), "test", ZoneInfo(zone), "rest", these, holidays)


def on(days: str, from_: str, to: str, band: str = "peak") -> Window:
    begin, end = (int(it[:2]) * 60 + int(it[3:]) for it in (from_, to))
    return Window(band, frozenset(days.split()), begin, end)


def naive_band(it: Calendar, moment: datetime) -> str:
    """Walk back minute by minute on the wall clock to where a window can have begun."""
    local = moment.astimezone(it.zone).replace(tzinfo=None)
    for window in it.windows:
        length = (window.to_minute - window.from_minute) % 1440 or 1440
        for back in range(length):
            begun = local.replace(second=0, microsecond=0) - back * MINUTE
            kind = HOLIDAY if begun.date() in it.holidays else WEEKDAYS[begun.weekday()]
            if begun.hour * 60 + begun.minute == window.from_minute and kind in window.days:
                return window.band
    return it.default_band


@settings(deadline=None, max_examples=100)
@given(
    zone=st.sampled_from(ZONES),
    these=st.lists(windows, max_size=3),
    start=st.sampled_from(STARTS),
    offset_minutes=st.lists(st.integers(0, 2 * 1440), min_size=8, max_size=8),
    holiday_offsets=st.frozensets(st.integers(-1, 3), max_size=2),
)
def test_a_band_is_what_the_wall_clock_says(
    zone: str,
    these: list[Window],
    start: datetime,
    offset_minutes: list[int],
    holiday_offsets: frozenset[int],
) -> None:
    holidays = frozenset(start.date() + timedelta(days=it) for it in holiday_offsets)
    it = calendar(*these, zone=zone, holidays=holidays)
    for offset in offset_minutes:
        moment = start + offset * MINUTE
        assert band_at(it, moment) == naive_band(it, moment)


@settings(deadline=None, max_examples=40)
@given(
    zone=st.sampled_from(ZONES),
    these=st.lists(windows, max_size=3),
    start=st.sampled_from(STARTS),
    is_holiday=st.booleans(),
)
def test_nothing_changes_between_one_change_and_the_next(
    zone: str, these: list[Window], start: datetime, is_holiday: bool
) -> None:
    holidays = frozenset([start.date() + timedelta(days=1)] if is_holiday else [])
    it = calendar(*these, zone=zone, holidays=holidays)
    end = start + timedelta(hours=50)
    told = list(spans(it, start, end))
    walked = [(start, band_at(it, start))]
    moment = start
    while (moment := moment + MINUTE) < end:
        if (band := band_at(it, moment)) != walked[-1][1]:
            walked.append((moment, band))
    assert told == walked


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    it = calendar(on("fri", "22:00", "06:00"))
    saturday = datetime(2026, 11, 21, tzinfo=UTC)
    assert band_at(it, saturday - timedelta(hours=2)) == "peak"
    assert band_at(it, saturday + timedelta(hours=6) - MINUTE) == "peak"
    assert band_at(it, saturday + timedelta(hours=6)) == "rest"
    assert band_at(it, saturday + timedelta(hours=22)) == "rest"


def test_a_holiday_is_no_weekday() -> None:
    it = calendar(
        on("mon", "00:00", "24:00"), on("holiday", "12:00", "13:00", "feast"),
        holidays=frozenset([date(2026, 11, 23)]),
    )  # fmt: skip
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    assert band_at(it, monday) == "rest"
    assert band_at(it, monday + timedelta(hours=12)) == "feast"
    assert band_at(it, monday + timedelta(days=7)) == "peak"
    assert next_change(it, monday + timedelta(hours=13)) == monday + timedelta(days=7)


def test_an_hour_that_clocks_skip_never_comes() -> None:
    it = calendar(on("sun", "02:00", "03:00"), zone="Europe/Berlin")
    before = datetime(2026, 3, 29, 0, tzinfo=UTC)
    assert [band for _, band in spans(it, before, before + timedelta(days=1))] == ["rest"]


def test_an_hour_that_clocks_repeat_counts_twice() -> None:
    it = calendar(on("sun", "02:00", "02:30"), zone="Europe/Berlin")
    begin = datetime(2026, 10, 25, 0, tzinfo=UTC)
    assert list(spans(it, begin, begin + timedelta(hours=3))) == [
        (begin, "peak"),
        (begin + timedelta(minutes=30), "rest"),
        (begin + timedelta(hours=1), "peak"),
        (begin + timedelta(minutes=90), "rest"),
    ]


def test_the_first_window_wins() -> None:
    it = calendar(on("sun", "01:00", "02:00", "a"), on("sun", "00:00", "24:00", "b"))
    sunday = datetime(2026, 11, 22, tzinfo=UTC)
    assert [band_at(it, sunday + timedelta(hours=hour)) for hour in range(3)] == ["b", "a", "b"]


def test_a_calendar_without_windows_never_changes() -> None:
    it = calendar()
    assert next_change(it, datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("until", "known"), [(None, False), (date(2026, 12, 31), True), (date(2026, 12, 30), False)]
)
def test_a_calendar_knows_how_far_its_holidays_reach(until: date | None, known: bool) -> None:
    it = Calendar(uuid.UUID(int=0), "c", ZoneInfo("UTC"), "rest", (), frozenset(), until)
    assert it.knows_holidays_at(datetime(2026, 12, 31, 23, tzinfo=UTC)) == known


def test_a_band_is_explained_in_words() -> None:
    it = calendar(on("mon tue wed thu fri", "09:00", "12:00"), zone="Asia/Shanghai")
    assert words_at(it, datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)) == (
        "mon-fri 09:00-12:00 (calendar test; it was 2026-11-23 09:02:03 Asia/Shanghai, mon)"
    )
    assert words_at(None, datetime(2026, 1, 1, tzinfo=UTC)) == "the same at every hour"
