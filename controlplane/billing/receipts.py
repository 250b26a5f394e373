"""One request's receipt: tokens, rates, the ledger lines that paid for it. Called by the API."""

import uuid
from dataclasses import dataclass

from sqlalchemy.orm import Session

from controlplane.accounts import ledger
from controlplane.accounts.ledger import LedgerLine
from controlplane.pricing.book import as_price
from controlplane.pricing.models import PriceVersion
from controlplane.pricing.rating import Price
from controlplane.usage import events
from controlplane.usage.models import UsageEvent


@dataclass(frozen=True, slots=True)
class Receipt:
    """A settled request, the price it was held at, and its lines on the tenant's account."""

    event: UsageEvent
    price: Price
    lines: list[LedgerLine]


def receipt(session: Session, *, tenant_id: uuid.UUID, request_id: uuid.UUID) -> Receipt:
    """Return the receipt of a request.

    Raises:
        NotFound: not settled yet, unknown, or another tenant's.
    """
    event = events.get(session, tenant_id=tenant_id, request_id=request_id)
    price = as_price(session.get_one(PriceVersion, event.price_version_id))
    lines = ledger.lines(session, tenant_id=tenant_id, request_id=request_id)
    return Receipt(event, price, lines)
