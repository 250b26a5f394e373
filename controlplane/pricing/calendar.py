"""When which band of a price holds: weekly windows in a time zone, and holidays. Pure.

A moment's band is read off the wall clock of the calendar's zone, so an hour that a clock change
skips never comes and one that it repeats counts twice. Called by the snapshot of the price book at
admission, and by whoever tells in words what holds and when it changes.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# A day on the list of holidays is of this kind and of no weekday.
HOLIDAY = "holiday"
MINUTES_PER_DAY = 24 * 60
_DAY = timedelta(days=1)
# Longer than a week that lost one window to a clock change.
_LONGEST_PATTERN_DAYS = 16


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a day in which a band holds.

    Attributes:
        days: of `WEEKDAYS` and `HOLIDAY`, the days it begins on.
        from_minute: local minute of the day it begins at, 0 to 1439.
        to_minute: the minute it ends before, 1 to 1440; not after `from_minute`, it is the next
            day's.
    """

    band: str
    days: frozenset[str]
    from_minute: int
    to_minute: int

    @property
    def wraps(self) -> bool:
        """Whether it goes on after midnight."""
        return self.to_minute <= self.from_minute

    def words(self) -> str:
        """Say it: "mon-fri 01:00-04:00"."""
        return f"{_days_in_words(self.days)} {clock(self.from_minute)}-{clock(self.to_minute)}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which band holds when. The first window that covers a moment wins; without one, the default.

    `holidays_known_until` is the last day that the list of holidays speaks of. After it every day
    counts as the weekday that it is.
    """

    id: uuid.UUID
    name: str
    zone: ZoneInfo
    default_band: str
    windows: tuple[Window, ...]
    holidays: frozenset[date]
    holidays_known_until: date | None = None

    @property
    def bands(self) -> frozenset[str]:
        """Every band that a price on this calendar needs rates of."""
        return frozenset([self.default_band, *(window.band for window in self.windows)])

    def knows_holidays_at(self, moment: datetime) -> bool:
        """Whether the list of holidays reaches this moment."""
        until = self.holidays_known_until
        return until is not None and moment.astimezone(self.zone).date() <= until


def band_at(calendar: Calendar, moment: datetime) -> str:
    """Return the band that holds at an aware moment."""
    window = window_at(calendar, moment)
    return calendar.default_band if window is None else window.band


def window_at(calendar: Calendar, moment: datetime) -> Window | None:
    """Return the window that decides on a moment, None when the default band holds."""
    local = moment.astimezone(calendar.zone)
    minute = local.hour * 60 + local.minute
    today = local.date()
    kind, kind_before = _kind(calendar, today), _kind(calendar, today - _DAY)
    for window in calendar.windows:
        begun = kind in window.days and minute >= window.from_minute
        if begun and (window.wraps or minute < window.to_minute):
            return window
        if window.wraps and kind_before in window.days and minute < window.to_minute:
            return window
    return None


def next_change(calendar: Calendar, moment: datetime) -> datetime | None:
    """Return the first moment after `moment` with another band, in UTC; None when none ever comes.

    Bands change where a window begins or ends, at midnight, and where the zone's clocks are set.
    """
    now = band_at(calendar, moment)
    today = moment.astimezone(calendar.zone).date()
    last = max([today, *calendar.holidays]) + timedelta(days=_LONGEST_PATTERN_DAYS)
    day = today - _DAY
    while day <= last:
        # Clock changes may mix the edges of neighbours, so two days are looked at together.
        edges = sorted({*_edges(calendar, day), *_edges(calendar, day + _DAY)})
        for edge in edges:
            if edge > moment and band_at(calendar, edge) != now:
                return edge
        day += _DAY
    return None


def spans(calendar: Calendar, begin: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield the bands of [begin, end) as (from when, band), in order."""
    at: datetime | None = begin
    while at is not None and at < end:
        yield at, band_at(calendar, at)
        at = next_change(calendar, at)


def words_at(calendar: Calendar | None, moment: datetime) -> str:
    """Say why a moment has its band, such as a receipt prints."""
    if calendar is None:
        return "the same at every hour"
    local = moment.astimezone(calendar.zone)
    window = window_at(calendar, moment)
    kind = "a holiday" if local.date() in calendar.holidays else WEEKDAYS[local.weekday()]
    why = "outside of every window" if window is None else window.words()
    return (
        f"{why} (calendar {calendar.name}; it was {local:%Y-%m-%d %H:%M:%S}"
        f" {calendar.zone.key}, {kind})"
    )


def clock(minute: int) -> str:
    """Return a minute of the day as "01:00"; 1440 is "24:00"."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _kind(calendar: Calendar, day: date) -> str:
    return HOLIDAY if day in calendar.holidays else WEEKDAYS[day.weekday()]


def _edges(calendar: Calendar, day: date) -> Iterator[datetime]:
    """Yield the moments of a local day at which its band can change."""
    minutes = {0}
    for window in calendar.windows:
        minutes |= {window.from_minute, window.to_minute % MINUTES_PER_DAY}
    for minute in minutes:
        # A repeated minute is two moments; of a skipped one, each reading is beside the gap.
        for fold in (0, 1):
            wall = datetime.combine(day, time(minute // 60, minute % 60, fold=fold))
            yield wall.replace(tzinfo=calendar.zone).astimezone(UTC)
    yield from _clock_changes(calendar.zone, day)


def _clock_changes(zone: ZoneInfo, day: date) -> Iterator[datetime]:
    """Yield the moment of a local day at which the zone's offset changes, if it does."""
    low = datetime.combine(day, time(), zone).astimezone(UTC) - timedelta(hours=1)
    high = datetime.combine(day + _DAY, time(), zone).astimezone(UTC) + timedelta(hours=1)
    before = low.astimezone(zone).utcoffset()
    if before == high.astimezone(zone).utcoffset():
        return
    second = timedelta(seconds=1)
    while high - low > second:
        middle = low + (high - low) // (2 * second) * second
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    yield high


def _days_in_words(days: Iterable[str]) -> str:
    chosen = set(days)
    words = []
    if chosen >= set(WEEKDAYS):
        words.append("every weekday")
    elif chosen >= set(WEEKDAYS[:5]) and not chosen & {"sat", "sun"}:
        words.append("mon-fri")
    else:
        words += [day for day in WEEKDAYS if day in chosen]
    if HOLIDAY in chosen:
        words.append("holidays")
    return ", ".join(words)
