"""One request's receipt: tokens, rates, the ledger lines that paid for it. Called by the API."""

import uuid
from dataclasses import dataclass

from sqlalchemy.orm import Session

from controlplane.accounts import ledger
from controlplane.accounts.ledger import LedgerLine
from controlplane.pricing import calendars
from controlplane.pricing.book import as_price
from controlplane.pricing.calendar import Calendar, words_at
from controlplane.pricing.models import PriceVersion
from controlplane.pricing.rating import Price
from controlplane.usage import events
from controlplane.usage.models import UsageEvent


@dataclass(frozen=True, slots=True)
class Receipt:
    """A settled request, the price it was held at, and its lines on the tenant's account.

    The moment that the request came, `event.started_at`, is what picked the band.
    """

    event: UsageEvent
    price: Price
    calendar: Calendar | None
    lines: list[LedgerLine]

    @property
    def band_explanation(self) -> str:
        """Why this band held, in words."""
        return f"{self.price.band}: {words_at(self.calendar, self.event.started_at)}"


def receipt(session: Session, *, tenant_id: uuid.UUID, request_id: uuid.UUID) -> Receipt:
    """Return the receipt of a request.

    Raises:
        NotFound: not settled yet, unknown, or another tenant's.
    """
    event = events.get(session, tenant_id=tenant_id, request_id=request_id)
    version = session.get_one(PriceVersion, event.price_version_id)
    calendar = calendars.as_calendar(version.calendar) if version.calendar else None
    lines = ledger.lines(session, tenant_id=tenant_id, request_id=request_id)
    return Receipt(event, as_price(version, event.band), calendar, lines)
