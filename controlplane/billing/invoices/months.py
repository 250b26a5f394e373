"""Months in UTC, told by their first day. Pure; called by `lifecycle` and `drafting`."""

from datetime import UTC, date, datetime


def month_of(moment: datetime) -> date:
    """Return the month that a moment lies in."""
    return moment.astimezone(UTC).date().replace(day=1)


def following(month: date) -> date:
    """Return the month after."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def begin(month: date) -> datetime:
    """Return a month's first moment."""
    return datetime(month.year, month.month, month.day, tzinfo=UTC)


def end(month: date) -> datetime:
    """Return the first moment after a month."""
    return begin(following(month))


def months(first: date, last: date) -> list[date]:
    """Return all months from `first` to `last`, none when that is earlier."""
    found = []
    while first <= last:
        found.append(first)
        first = following(first)
    return found
