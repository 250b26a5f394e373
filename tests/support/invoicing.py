"""Invoices for tests: months that are over, and everything made final at a moment."""

import uuid
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session, sessionmaker
from support.shop import Customer, Shop

from controlplane.accounts import funds, ledger
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.models import Account
from controlplane.billing.invoices import documents, lifecycle
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.profiles import Seller
from controlplane.db import uuid7
from controlplane.pricing import book
from controlplane.pricing.models import PriceVersion
from controlplane.pricing.rating import ChargeLine
from controlplane.usage.models import UsageEvent

# A miss costs 1 p$, so any sum can be charged.
UNIT_MODEL = "by-the-picodollar"
SELLER = Seller(
    name="Sell & Sons",
    address="1 Rack Row\nData City",
    tax_id="XX123",
    series="FP",
    grace_hours=24.0,
    payment_days=14,
)


def run(sessions: sessionmaker[Session], now: datetime, seller: Seller = SELLER) -> int:
    """Do what the jobs do at `now`; return how many invoices were dealt with."""
    with sessions.begin() as session:
        lifecycle.begin_months(session, now)
    with sessions.begin() as session:
        lifecycle.end_months(session, now)
    count = 0
    while finish_one(sessions, now, seller):
        count += 1
    return count


def finish_one(sessions: sessionmaker[Session], now: datetime, seller: Seller = SELLER) -> int:
    with sessions.begin() as session:
        return lifecycle.finish_next(session, now, seller)


def final(sessions: sessionmaker[Session], tenant_id: uuid.UUID) -> list[Document]:
    """A tenant's final invoices, oldest first."""
    with sessions.begin() as session:
        found = documents.listing(session, tenant_id=tenant_id, state="final")
        found.sort(key=lambda invoice: invoice.month)
        return [documents.document(session, invoice) for invoice in found]


def line_sum_p(document: Document, *sections: str) -> int:
    return sum(line.amount_p for line in document.lines if line.section in sections)


def set_terms(sessions: sessionmaker[Session], tenant_id: uuid.UUID, credit_limit_p: int) -> None:
    """Let a tenant pay afterwards, up to a limit."""
    with sessions.begin() as session:
        session.execute(
            update(Account)
            .where(Account.tenant_id == tenant_id)
            .values(terms="postpaid", credit_limit_p=credit_limit_p)
        )


def use(shop: Shop, customer: Customer, amount_p: int, started_at: datetime) -> None:
    """Charge a customer `amount_p` for a request of any moment, as settlement would write it."""
    request_id = uuid7()
    with shop.sessions.begin() as session:
        accounts = funds.lock(session, tenant_ids=[customer.tenant_id], platform=["revenue"])
        account, revenue = accounts.by_tenant[customer.tenant_id], accounts.by_kind["revenue"]
        session.execute(
            insert(UsageEvent).values(
                request_id=request_id,
                tenant_id=customer.tenant_id,
                api_key_id=customer.api_key_id,
                model=UNIT_MODEL,
                path="serverless",
                thinking=False,
                streamed=False,
                hit_tokens=0,
                miss_tokens=amount_p,
                output_tokens=0,
                reasoning_tokens=0,
                finish_reason="stop",
                started_at=started_at,
                price_version_id=_unit_price(session),
                band="standard",
                charge_p=amount_p,
            )
        )
        line = ChargeLine("miss", amount_p, 1, amount_p)
        entries = [Entry(account, -amount_p, line), Entry(revenue, amount_p)]
        tenant_id = customer.tenant_id
        ledger.post(
            session, [Posting("charge", tenant_id, entries, "used", "test", request_id=request_id)]
        )


def _unit_price(session: Session) -> uuid.UUID:
    known = session.scalar(select(PriceVersion.id).where(PriceVersion.model == UNIT_MODEL))
    if known is not None:
        return known
    return book.publish(session, model=UNIT_MODEL, hit_rate_p=0, miss_rate_p=1, output_rate_p=0).id
