"""Times of the week in the zones people live in: windows, and minimums that hold for a time.

A window is an interval between two moments of wall-clock time. A time that daylight saving skips is
taken as if the clocks had not changed yet; of one that comes twice, a window starts at the first
and ends at the last, so that neighbouring windows leave no gap.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from controlplane.crd.inference import DAYS, ScheduledMinimum, Window


class UnknownTimezone(ValueError):
    """No such zone in the IANA database."""


def is_open(windows: Iterable[Window], now: float) -> bool:
    """Tell whether one of `windows` holds at `now`, in seconds since 1970; without any: always.

    Raises:
        UnknownTimezone: a window's zone does not exist.
    """
    windows = list(windows)
    return not windows or any(_holds(window, now) for window in windows)


def scheduled_minimum(schedules: Iterable[ScheduledMinimum], now: float) -> int:
    """Return the greatest minimum of those that hold at `now`; 0 if none does."""
    return max((it.min for it in schedules if _holds(it, now)), default=0)


def next_change(windows: Iterable[Window], now: float) -> float | None:
    """Return the next moment at which one of `windows` starts or ends; None without any."""
    moments = (moment for window in windows for span in _spans(window, now) for moment in span)
    return min((moment for moment in moments if moment > now), default=None)


def _holds(window: Window, now: float) -> bool:
    return any(start <= now < end for start, end in _spans(window, now))


def _spans(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """Yield the window's intervals from the day before yesterday to over a week from now."""
    zone = timezone(window.timezone)
    today = datetime.fromtimestamp(now, zone).date()
    for offset in range(-2, 9):
        day = today + timedelta(days=offset)
        if DAYS[day.weekday()] in window.days:
            last = day + timedelta(days=1) if window.end <= window.start else day
            start, end = _moment(day, window.start, zone, 0), _moment(last, window.end, zone, 1)
            yield start, end


def timezone(name: str) -> ZoneInfo:
    """Return a zone by its IANA name.

    Raises:
        UnknownTimezone: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownTimezone(f"no time zone is called {name!r}") from error


def _moment(day: date, time: str, zone: ZoneInfo, fold: int) -> float:
    hour, minute = time.split(":")
    naive = datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=zone)
    there_and_back = naive.astimezone(UTC).astimezone(zone)
    skipped = there_and_back.replace(tzinfo=None) != naive.replace(tzinfo=None)
    return naive.replace(fold=0 if skipped else fold).timestamp()
