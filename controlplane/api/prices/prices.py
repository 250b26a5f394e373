"""Admin routes of the price book: prices, calendars, what holds at a moment."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, OfTenant, page
from controlplane.api.prices.price_schemas import (
    CalendarOut,
    CurrentPrice,
    ImportedBook,
    NewBook,
    NewCalendar,
    NewPreview,
    NewPrice,
    Preview,
    PriceOut,
    RatesOut,
    holidays_note,
)
from controlplane.api.schemas import Moment, Name, Page
from controlplane.billing.repricing import last_month, reprice
from controlplane.pricing import book, calendars
from controlplane.pricing.calendar import words_at
from controlplane.pricing.drafts import SERVERLESS, Draft
from controlplane.pricing.models import PriceCalendar
from controlplane.pricing.snapshot import PriceBook
from controlplane.tenants import tenants

router = APIRouter(tags=["prices"], route_class=Contract)

PathName = Literal["serverless", "dedicated"]


@router.get("/admin/v1/prices")
def list_prices(
    session: Db,
    admin: Admin,
    after: AfterId = None,
    limit: Limit = 100,
    model: Annotated[Name | None, Query(description="only this model's")] = None,
    path: Annotated[PathName | None, Query(description="only this path's")] = None,
    tenant_id: OfTenant = None,
) -> Page[PriceOut]:
    """List price versions in the order they were published."""
    found = book.listing(
        session, after=after, limit=limit + 1, model=model, path=path, tenant_id=tenant_id
    )
    return page(found, limit, show=PriceOut.of, cursor=lambda version: version.id)


@router.post("/admin/v1/prices", status_code=201)
def publish_price(body: NewPrice, session: Db, admin: Admin) -> PriceOut:
    """Publish a version. It never changes; requests admitted before keep the price they saw.

    Only the first price of a model, path and tenant may begin in the past.
    """
    return PriceOut.of(book.publish_all(session, [checked_draft(session, body)])[0])


@router.post("/admin/v1/prices/import", status_code=201)
def import_prices(body: NewBook, session: Db, admin: Admin) -> ImportedBook:
    """Publish a book of calendars and prices, all or nothing; importing it again changes nothing.

    A model's first book may be a history of the past.
    """
    rows = [make_calendar(session, calendar, keep_known=True) for calendar in body.calendars]
    wanted = [checked_draft(session, price) for price in body.prices]
    versions = book.publish_all(session, wanted, keep_known=True)
    return ImportedBook(
        calendars=[CalendarOut.of(row) for row in rows],
        prices=[PriceOut.of(version) for version in versions],
    )


@router.post("/admin/v1/prices/preview")
def preview_price(body: NewPreview, session: Db, admin: Admin) -> Preview:
    """Tell what a price would have made of past traffic, by band and for the tenants whose bills
    change the most. Publishes nothing."""
    since, until = last_month(datetime.now(UTC))
    since, until = body.since or since, body.until or until
    rows = reprice(session, checked_draft(session, body.price), begin=since, end=until)
    return Preview.of_rows(rows, since=since, until=until, top=body.top)


@router.get("/admin/v1/prices/current")
def get_current_price(
    session: Db,
    admin: Admin,
    model: Name,
    path: PathName = SERVERLESS,
    tenant_id: OfTenant = None,
    at: Annotated[Moment | None, Query(description="null: now")] = None,
) -> CurrentPrice:
    """Show what a request costs at a moment, the band that holds then, and the next change."""
    if tenant_id is not None:
        tenants.get(session, tenant_id=tenant_id)
    found = book.current_for(session, tenant_id)
    return current_price(found, model, path, at or datetime.now(UTC), tenant_id)


@router.get("/admin/v1/price-calendars")
def list_calendars(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[CalendarOut]:
    """List calendars in the order they were made."""
    found = calendars.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=CalendarOut.of, cursor=lambda row: row.id)


@router.post("/admin/v1/price-calendars", status_code=201)
def create_calendar(body: NewCalendar, session: Db, admin: Admin) -> CalendarOut:
    """Make a calendar. It never changes: next year's holidays are a new one of the same name, and
    a price published with it."""
    return CalendarOut.of(make_calendar(session, body))


@router.get("/admin/v1/price-calendars/{calendar_id}")
def get_calendar(calendar_id: uuid.UUID, session: Db, admin: Admin) -> CalendarOut:
    """Show a calendar, the band that holds now and when it changes."""
    return CalendarOut.of(calendars.get(session, calendar_id))


def make_calendar(
    session: Session, body: NewCalendar, *, keep_known: bool = False
) -> PriceCalendar:
    """Add a calendar; with `keep_known`, return the newest of its name if it says the same."""
    return calendars.create(
        session,
        name=body.name,
        time_zone=body.time_zone,
        default_band=body.default_band,
        windows=[window.window() for window in body.windows],
        holidays=body.holidays,
        holidays_known_until=body.holidays_known_until,
        keep_known=keep_known,
    )


def checked_draft(session: Session, body: NewPrice) -> Draft:
    """Return the draft a body asks for.

    Raises:
        NotFound: no such tenant or calendar.
    """
    if body.tenant_id is not None:
        tenants.get(session, tenant_id=body.tenant_id)
    row = None
    if body.calendar_id is not None:
        row = calendars.get(session, body.calendar_id)
    elif body.calendar is not None:
        row = calendars.newest(session, body.calendar)
    return body.draft(calendars.as_calendar(row) if row else None)


def current_price(
    found: PriceBook, model: str, path: str, at: datetime, tenant_id: uuid.UUID | None
) -> CurrentPrice:
    """Return what holds in a book at a moment; raises as `PriceBook.version` does."""
    version = found.version(model, path, at, tenant_id)
    price = version.price(at)
    return CurrentPrice(
        **RatesOut.of(price).model_dump(),
        model=model,
        path=path,
        at=at,
        price_version_id=version.id,
        is_override=version.key[0] is not None,
        band=price.band,
        band_explanation=words_at(version.calendar, at),
        effective_from=version.effective_from,
        bands={band: RatesOut.of(it) for band, it in version.prices.items()},
        next_change=found.next_change(model, path, at, tenant_id),
        holidays_note=holidays_note(version.calendar, at),
    )
