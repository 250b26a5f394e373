"""What the REST API takes and gives of the price book. Rates are decimal strings in USD."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from controlplane.amounts import Usd, UsdPerMillion
from controlplane.api.schemas import Body, Moment, Name
from controlplane.billing.repricing import Repriced, totals
from controlplane.money import (
    p_to_usd,
    rate_p_to_usd_per_million,
    usd_per_million_to_rate_p,
    usd_to_p,
)
from controlplane.pricing import calendars
from controlplane.pricing.calendar import MINUTES_PER_DAY, Calendar, Window, band_at, next_change
from controlplane.pricing.drafts import SERVERLESS, Draft, Rates
from controlplane.pricing.models import PriceCalendar, PriceRate, PriceVersion
from controlplane.pricing.rating import STANDARD, Price

Band = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]
# One currency: a balance and a price are always in the same.
Currency = Literal["USD"]


class RatesIn(Body):
    """What tokens cost, and each request beside its tokens."""

    hit_usd_per_million: UsdPerMillion = Field(examples=["0.0028"])
    miss_usd_per_million: UsdPerMillion = Field(examples=["0.14"])
    output_usd_per_million: UsdPerMillion = Field(examples=["0.28"])
    request_usd: Usd = Field(
        default="0", description="once per request that read or produced any token"
    )

    def rates(self) -> Rates:
        """Return them as exact integers."""
        return Rates(
            hit_p=usd_per_million_to_rate_p(self.hit_usd_per_million),
            miss_p=usd_per_million_to_rate_p(self.miss_usd_per_million),
            output_p=usd_per_million_to_rate_p(self.output_usd_per_million),
            request_p=usd_to_p(self.request_usd),
        )


class NewPrice(Body):
    """A model's price from a moment on, null: from now.

    Give the rates themselves for a price that is the same at every hour; or `bands` with the
    calendar that says which holds when; or, with a `tenant_id`, `ends_override` to give the tenant
    back the price that holds for all.
    """

    model: Name
    path: Literal["serverless"] = SERVERLESS
    tenant_id: uuid.UUID | None = Field(default=None, description="for this tenant alone")
    currency: Currency = "USD"
    effective_from: Moment | None = None
    hit_usd_per_million: UsdPerMillion | None = Field(default=None, examples=["0.0028"])
    miss_usd_per_million: UsdPerMillion | None = Field(default=None, examples=["0.14"])
    output_usd_per_million: UsdPerMillion | None = Field(default=None, examples=["0.28"])
    request_usd: Usd | None = None
    calendar_id: uuid.UUID | None = Field(default=None, description="see /admin/v1/price-calendars")
    calendar: Name | None = Field(
        default=None, description="its name instead of its id: the newest of that name"
    )
    bands: dict[Band, RatesIn] | None = Field(
        default=None, description="rates of exactly the calendar's bands"
    )
    ends_override: bool = False

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        flat = self._flat()
        kinds = [bool(flat), self.bands is not None, self.ends_override]
        if sum(kinds) != 1:
            raise ValueError("give the rates, or bands with a calendar, or ends_override")
        calendars_given = [self.calendar_id is not None, self.calendar is not None]
        if sum(calendars_given) != (self.bands is not None):
            raise ValueError("bands and one of calendar_id and calendar go together")
        if flat:
            RatesIn.model_validate(flat)
        return self

    def _flat(self) -> dict[str, str]:
        found = self.model_dump(include=set(RatesIn.model_fields), exclude_none=True)
        return {name: str(text) for name, text in found.items()}

    def draft(self, calendar: Calendar | None) -> Draft:
        """Return what is to be published, on the calendar that the body names."""
        bands = self.bands or {}
        if flat := self._flat():
            bands = {STANDARD: RatesIn.model_validate(flat)}
        return Draft(
            model=self.model,
            path=self.path,
            rates={band: rates.rates() for band, rates in bands.items()},
            tenant_id=self.tenant_id,
            calendar=calendar,
            effective_from=self.effective_from,
        )


class RatesOut(BaseModel):
    """What tokens cost, and each request beside its tokens."""

    hit_usd_per_million: str
    miss_usd_per_million: str
    output_usd_per_million: str
    request_usd: str

    @classmethod
    def of(cls, rates: PriceRate | Price) -> Self:
        return cls(
            hit_usd_per_million=rate_p_to_usd_per_million(rates.hit_rate_p),
            miss_usd_per_million=rate_p_to_usd_per_million(rates.miss_rate_p),
            output_usd_per_million=rate_p_to_usd_per_million(rates.output_rate_p),
            request_usd=p_to_usd(rates.request_rate_p),
        )


class PriceOut(BaseModel):
    """A published version. The rates beside `bands` are those of the band `standard`, if any."""

    id: uuid.UUID
    model: str
    path: str
    tenant_id: uuid.UUID | None
    currency: Currency = "USD"
    calendar_id: uuid.UUID | None
    calendar: str | None
    bands: dict[str, RatesOut]
    ends_override: bool
    hit_usd_per_million: str | None
    miss_usd_per_million: str | None
    output_usd_per_million: str | None
    request_usd: str | None
    effective_from: datetime
    created_at: datetime

    @classmethod
    def of(cls, version: PriceVersion) -> Self:
        bands = {rate.band: RatesOut.of(rate) for rate in version.rates}
        standard = bands.get(STANDARD)
        return cls(
            id=version.id,
            model=version.model,
            path=version.path,
            tenant_id=version.tenant_id,
            calendar_id=version.calendar_id,
            calendar=version.calendar.name if version.calendar else None,
            bands=bands,
            ends_override=not bands,
            hit_usd_per_million=standard.hit_usd_per_million if standard else None,
            miss_usd_per_million=standard.miss_usd_per_million if standard else None,
            output_usd_per_million=standard.output_usd_per_million if standard else None,
            request_usd=standard.request_usd if standard else None,
            effective_from=version.effective_from,
            created_at=version.created_at,
        )


class WindowIn(Body):
    """Part of a day in which a band holds, by the wall clock of the calendar's zone."""

    band: Band
    days: list[Day] = Field(min_length=1, max_length=8, description="the days it begins on")
    from_: Clock = Field(alias="from", examples=["01:00"])
    to: Clock = Field(examples=["04:00"], description="not after `from`: of the next day")

    def window(self) -> Window:
        """Return it as minutes of the day."""
        to_minute = calendars.minute(self.to) or MINUTES_PER_DAY
        return Window(self.band, frozenset(self.days), calendars.minute(self.from_), to_minute)


class NewCalendar(Body):
    """Which band of a price holds when. The first window that covers a moment wins."""

    name: Name
    time_zone: Name = Field(examples=["UTC", "Asia/Shanghai"], description="of the IANA database")
    default_band: Band = Field(description="holds outside of every window")
    windows: list[WindowIn] = Field(max_length=100)
    holidays: list[date] = Field(
        default=[], max_length=1000, description="local days; only windows of `holiday` begin then"
    )
    holidays_known_until: date | None = Field(
        default=None, description="last day the list speaks of; later days are plain weekdays"
    )


class CalendarOut(BaseModel):
    """A calendar; it never changes. `holidays_note` warns where its list of holidays ends."""

    id: uuid.UUID
    name: str
    time_zone: str
    default_band: str
    windows: list[dict[str, Any]]
    holidays: list[date]
    holidays_known_until: date | None
    holidays_note: str | None
    band_now: str
    next_change: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, row: PriceCalendar) -> Self:
        calendar, now = calendars.as_calendar(row), datetime.now(UTC)
        return cls(
            id=row.id,
            name=row.name,
            time_zone=row.time_zone,
            default_band=row.default_band,
            windows=row.windows,
            holidays=row.holidays,
            holidays_known_until=row.holidays_known_until,
            holidays_note=holidays_note(calendar, now),
            band_now=band_at(calendar, now),
            next_change=next_change(calendar, now),
            created_at=row.created_at,
        )


class NewBook(Body):
    """Calendars, and prices that name them: a whole history of a model, if need be.

    What is there already, word for word, is left as it is, so a book may be imported again.
    """

    calendars: list[NewCalendar] = Field(default=[], max_length=100)
    prices: list[NewPrice] = Field(max_length=1000)

    @model_validator(mode="after")
    def _has_moments(self) -> Self:
        if any(price.effective_from is None for price in self.prices):
            raise ValueError("every price of a book needs its effective_from")
        return self


class ImportedBook(BaseModel):
    calendars: list["CalendarOut"]
    prices: list[PriceOut]


class NewPreview(Body):
    """A price to try on the settled requests that began from `since` until before `until`; null:
    the calendar month before this one, in UTC."""

    price: NewPrice
    since: Moment | None = None
    until: Moment | None = None
    top: int = Field(default=20, ge=1, le=1000, description="tenants whose bills change the most")


class Change(BaseModel):
    """What requests were charged, and what they would be."""

    requests: int
    old_usd: str
    old_p: str
    new_usd: str
    new_p: str
    difference_usd: str
    difference_p: str

    @classmethod
    def of(cls, rows: Iterable[Repriced], **more: object) -> Self:
        requests, old_p, new_p = totals(rows)
        return cls(
            requests=requests,
            old_usd=p_to_usd(old_p),
            old_p=str(old_p),
            new_usd=p_to_usd(new_p),
            new_p=str(new_p),
            difference_usd=p_to_usd(new_p - old_p),
            difference_p=str(new_p - old_p),
            **more,
        )


class BandChange(Change):
    old_band: str
    new_band: str


class TenantChange(Change):
    tenant_id: uuid.UUID


class Preview(Change):
    """What a price would change on past traffic. Nothing was published or charged."""

    since: datetime
    until: datetime
    bands: list[BandChange]
    tenants: list[TenantChange]
    tenants_affected: int

    @classmethod
    def of_rows(
        cls, rows: Sequence[Repriced], *, since: datetime, until: datetime, top: int
    ) -> Self:
        by_band: dict[tuple[str, str], list[Repriced]] = {}
        by_tenant: dict[uuid.UUID, list[Repriced]] = {}
        for row in rows:
            by_band.setdefault((row.old_band, row.new_band), []).append(row)
            by_tenant.setdefault(row.tenant_id, []).append(row)
        most = sorted(by_tenant.items(), key=lambda it: -abs(sum(r.difference_p for r in it[1])))
        return cls.of(
            rows,
            since=since,
            until=until,
            bands=[
                BandChange.of(found, old_band=old, new_band=new)
                for (old, new), found in sorted(by_band.items())
            ],
            tenants=[TenantChange.of(found, tenant_id=it) for it, found in most[:top]],
            tenants_affected=len(by_tenant),
        )


class CurrentPrice(RatesOut):
    """What a request of the moment `at` costs, why, and when that changes."""

    model: str
    path: str
    currency: Currency = "USD"
    at: datetime
    price_version_id: uuid.UUID
    is_override: bool = Field(description="a price of this tenant alone")
    band: str
    band_explanation: str
    effective_from: datetime
    bands: Mapping[str, RatesOut] = Field(description="the whole price, by band")
    next_change: datetime | None = Field(description="null: none is known of")
    holidays_note: str | None


def holidays_note(calendar: Calendar | None, at: datetime) -> str | None:
    """Say what a day after the end of the list of holidays counts as; None before it."""
    if calendar is None or calendar.knows_holidays_at(at):
        return None
    until = calendar.holidays_known_until
    if until is None:
        return "this calendar knows no holidays: every day counts as its weekday"
    return f"holidays are known until {until}: every later day counts as its weekday"
