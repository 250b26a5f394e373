"""Calendars of prices in the database: made, read, told as the pure `calendar.Calendar`.

A row never changes. Called by the REST API and by `book`.
"""

import uuid
import zoneinfo
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import NotFound, UnprocessableRequest
from controlplane.pricing.calendar import HOLIDAY, WEEKDAYS, Calendar, Window, clock
from controlplane.pricing.models import PriceCalendar


def create(
    session: Session,
    *,
    name: str,
    time_zone: str,
    default_band: str,
    windows: Sequence[Window],
    holidays: Collection[date] = (),
    holidays_known_until: date | None = None,
    keep_known: bool = False,
) -> PriceCalendar:
    """Add a calendar; a name that is taken makes the next version of it.

    With `keep_known`, the newest of its name is returned instead when it says the same.

    Raises:
        UnprocessableRequest: an unknown time zone, a window without length or day, or a list of
            holidays that does not reach its own last day.
    """
    zone(time_zone)
    for window in windows:
        _check(window)
    if holidays and (holidays_known_until is None or max(holidays) > holidays_known_until):
        raise UnprocessableRequest(
            "Say how far the list of holidays reaches: at least to its last day.",
            param="holidays_known_until",
        )
    columns = {
        "time_zone": time_zone,
        "default_band": default_band,
        "windows": [as_json(window) for window in windows],
        "holidays": sorted(set(holidays)),
        "holidays_known_until": holidays_known_until,
    }
    known = _newest(session, name) if keep_known else None
    if known is not None and all(getattr(known, it) == is_ for it, is_ in columns.items()):
        return known
    row = PriceCalendar(name=name, **columns)
    session.add(row)
    session.flush()
    return row


def get(session: Session, calendar_id: uuid.UUID) -> PriceCalendar:
    """Return one calendar.

    Raises:
        NotFound: there is none of this id.
    """
    row = session.get(PriceCalendar, calendar_id)
    if row is None:
        raise NotFound(f"There is no price calendar {calendar_id}.", param="calendar_id")
    return row


def newest(session: Session, name: str) -> PriceCalendar:
    """Return the newest calendar of a name.

    Raises:
        NotFound: there is none.
    """
    row = _newest(session, name)
    if row is None:
        raise NotFound(f"There is no price calendar {name!r}.", param="calendar")
    return row


def _newest(session: Session, name: str) -> PriceCalendar | None:
    return session.scalar(
        select(PriceCalendar)
        .where(PriceCalendar.name == name)
        .order_by(PriceCalendar.id.desc())
        .limit(1)
    )


def listing(
    session: Session, *, after: uuid.UUID | None = None, limit: int | None = None
) -> list[PriceCalendar]:
    """Return calendars in the order they were made, those after the id `after`."""
    query = select(PriceCalendar).order_by(PriceCalendar.id).limit(limit)
    if after is not None:
        query = query.where(PriceCalendar.id > after)
    return list(session.scalars(query))


def by_id(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Calendar]:
    """Return the pure calendars of these ids."""
    rows = session.scalars(select(PriceCalendar).where(PriceCalendar.id.in_(ids))) if ids else ()
    return {row.id: as_calendar(row) for row in rows}


def as_calendar(row: PriceCalendar) -> Calendar:
    """Return the pure calendar of a row."""
    return Calendar(
        id=row.id,
        name=row.name,
        zone=zone(row.time_zone),
        default_band=row.default_band,
        windows=tuple(from_json(window) for window in row.windows),
        holidays=frozenset(row.holidays),
        holidays_known_until=row.holidays_known_until,
    )


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone of the IANA database.

    Raises:
        UnprocessableRequest: there is none of this name.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise UnprocessableRequest(
            f"{name!r} is no time zone; write one such as Asia/Shanghai or UTC.", param="time_zone"
        ) from None


def as_json(window: Window) -> dict[str, Any]:
    """Return a window as it is stored and told."""
    return {
        "band": window.band,
        "days": [day for day in (*WEEKDAYS, HOLIDAY) if day in window.days],
        "from": clock(window.from_minute),
        "to": clock(window.to_minute),
    }


def from_json(stored: Mapping[str, Any]) -> Window:
    """Return the window that `as_json` told."""
    return Window(
        stored["band"], frozenset(stored["days"]), minute(stored["from"]), minute(stored["to"])
    )


def minute(text: str) -> int:
    """Return the minute of the day of a time such as "01:00"."""
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _check(window: Window) -> None:
    if not window.days or not window.days <= {*WEEKDAYS, HOLIDAY}:
        raise UnprocessableRequest(
            f"A window's days are some of {', '.join(WEEKDAYS)} and {HOLIDAY}.", param="windows"
        )
    if not (0 <= window.from_minute < 1440 and 1 <= window.to_minute <= 1440):
        raise UnprocessableRequest(
            "A window is from 00:00 to 23:59, to 00:01 to 24:00.", param="windows"
        )
    if window.from_minute == window.to_minute:
        raise UnprocessableRequest("A window needs a length.", param="windows")
