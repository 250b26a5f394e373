"""What a payment provider tells: money that came in. Called by the webhook route.

An event's id counts once, for ever: the same event again gives the same transaction.
"""

import hashlib
import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from controlplane.accounts import ledger
from controlplane.accounts.models import LedgerTransaction
from controlplane.amounts import Usd
from controlplane.billing.invoices import paying
from controlplane.billing.invoices.models import PaymentEvent
from controlplane.errors import Conflict
from controlplane.money import usd_to_p

AUTHOR = "payment provider"
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:event_id, 0))")


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="the provider's own id of the event: the same id again changes nothing",
    )
    amount_usd: Usd = Field(examples=["25.00"], description="what came in, tax included")


class TopUpPaid(_Event):
    """A tenant paid in."""

    type: Literal["top_up"]
    tenant_id: uuid.UUID


class InvoicePaid(_Event):
    """Somebody paid an invoice, or a part of it."""

    type: Literal["invoice.paid"]
    invoice_id: uuid.UUID


PaymentNews = Annotated[TopUpPaid | InvoicePaid, Field(discriminator="type")]


def take(session: Session, news: TopUpPaid | InvoicePaid, body: bytes) -> LedgerTransaction:
    """Book an event, and return its transaction; one that was booked before, as it was.

    Raises:
        Conflict: the id was another event's, or nothing of the invoice is due.
        NotFound: no such tenant or invoice.
        UnprocessableRequest: the amount is not above zero.
    """
    session.execute(_LOCK, {"event_id": news.id})
    body_hash = hashlib.sha256(body).digest()
    known = session.scalar(select(PaymentEvent).where(PaymentEvent.event_id == news.id))
    if known is not None:
        if known.body_hash != body_hash:
            raise Conflict(f"The event {news.id!r} was another one before.", param="id")
        return session.get_one(LedgerTransaction, known.transaction_id)
    reason, amount_p = f"payment {news.id}", usd_to_p(news.amount_usd)
    if isinstance(news, TopUpPaid):
        transaction = ledger.top_up(
            session, tenant_id=news.tenant_id, amount_p=amount_p, reason=reason, author=AUTHOR
        )
    else:
        transaction = paying.pay(
            session, invoice_id=news.invoice_id, amount_p=amount_p, reason=reason, author=AUTHOR
        )
    session.add(PaymentEvent(event_id=news.id, body_hash=body_hash, transaction_id=transaction.id))
    session.flush()
    return transaction
