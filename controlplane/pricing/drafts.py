"""A price that is still to be published: its rates by band, and what makes it acceptable. Pure.

Called by the REST API, which makes drafts, and by `book` and the preview, which check them.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from controlplane.errors import UnprocessableRequest
from controlplane.money import P_PER_USD
from controlplane.pricing.calendar import Calendar
from controlplane.pricing.rating import STANDARD, Price

SERVERLESS: Final = "serverless"
DEDICATED: Final = "dedicated"
# The model of a price that holds for every model of the dedicated path without one of its own.
ANY_MODEL: Final = "*"
# 10,000 USD per million tokens; keeps the price of the largest request inside one ledger entry.
MAX_RATE_P = 10**10
MAX_REQUEST_RATE_P = 100 * P_PER_USD


@dataclass(frozen=True, slots=True)
class Rates:
    """What one band costs: p$ per token by class, and p$ per request."""

    hit_p: int
    miss_p: int
    output_p: int
    request_p: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """A price from a moment on, for all tenants or one.

    Attributes:
        rates: by band; without a calendar the one band `standard`. None at all ends what the
            tenant had of its own.
        effective_from: None means from now on.
    """

    model: str
    rates: Mapping[str, Rates]
    path: str = SERVERLESS
    tenant_id: uuid.UUID | None = None
    calendar: Calendar | None = None
    effective_from: datetime | None = None

    @property
    def key(self) -> tuple[uuid.UUID | None, str, str]:
        """Whose and of what; drafts and versions of one key follow each other in time."""
        return self.tenant_id, self.model, self.path

    def prices(self, version_id: uuid.UUID) -> dict[str, Price]:
        """Return the price of each band, as version `version_id`."""
        return {
            band: Price(
                version_id=version_id,
                model=self.model,
                path=self.path,
                hit_rate_p=rates.hit_p,
                miss_rate_p=rates.miss_p,
                output_rate_p=rates.output_p,
                band=band,
                request_rate_p=rates.request_p,
            )
            for band, rates in self.rates.items()
        }


def check(draft: Draft) -> None:
    """Check what a draft says by itself.

    Raises:
        UnprocessableRequest: a rate out of its range, a hit dearer than a miss, or other bands than
            the calendar's.
    """
    if not draft.rates:
        if draft.tenant_id is None:
            raise UnprocessableRequest("Only a tenant's own price can end.", param="ends_override")
        if draft.calendar is not None:
            raise UnprocessableRequest("What ends has no calendar.", param="calendar_id")
        return
    wanted = draft.calendar.bands if draft.calendar else frozenset([STANDARD])
    if draft.rates.keys() != wanted:
        raise UnprocessableRequest(
            f"This price needs rates of exactly these bands: {', '.join(sorted(wanted))}."
            " Without a calendar there is only `standard`.",
            param="bands",
        )
    for band, rates in draft.rates.items():
        _check_rates(band, rates)


def _check_rates(band: str, rates: Rates) -> None:
    if not all(0 <= rate <= MAX_RATE_P for rate in (rates.hit_p, rates.miss_p, rates.output_p)):
        raise UnprocessableRequest(
            f"A rate must be from 0 to 10,000 USD per million tokens (band {band})."
        )
    if not 0 <= rates.request_p <= MAX_REQUEST_RATE_P:
        raise UnprocessableRequest(f"A request must cost from 0 to 100 USD (band {band}).")
    if rates.hit_p > rates.miss_p:
        raise UnprocessableRequest(
            f"A cache hit must not cost more than a cache miss (band {band})."
        )
