"""Invoices for tests: months that are over, and everything made final at a moment."""

import uuid
from datetime import datetime

from sqlalchemy.orm import Session, sessionmaker

from controlplane.billing.invoices import documents, lifecycle
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.profiles import Seller

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
