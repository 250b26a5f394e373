"""Payments of invoices: whole, in parts, too much. Called by the REST API and `provider`.

Each payment is one ledger transaction and a row that says what of it paid the invoice. What is more
than the amount due stays on the tenant's account and is taken off its next invoice.
"""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.accounts import payments
from controlplane.accounts.models import LedgerTransaction
from controlplane.billing.invoices.amounts import tax_part
from controlplane.billing.invoices.models import P_PER_CENT, Invoice, InvoicePayment
from controlplane.errors import Conflict, NotFound, UnprocessableRequest

Standing = Literal["unfinished", "due", "overdue", "paid"]


def pay(
    session: Session, *, invoice_id: uuid.UUID, amount_p: int, reason: str, author: str
) -> LedgerTransaction:
    """Book money that came in for a final invoice, even one that was paid already.

    Args:
        amount_p: tax and all; whole cents.

    Raises:
        NotFound: no such invoice.
        Conflict: it is not final.
        UnprocessableRequest: the amount is not above zero, or has a fraction of a cent.
    """
    cents, fraction_p = divmod(amount_p, P_PER_CENT)
    if fraction_p or cents <= 0:
        raise UnprocessableRequest("A payment is whole cents above zero.", param="amount_usd")
    invoice, paid = _locked(session, invoice_id)
    assert invoice.due_cents is not None
    applied = min(cents, invoice.due_cents - paid)
    tax_cents = _tax_until(invoice, paid + applied) - _tax_until(invoice, paid)
    transaction = payments.pay(
        session,
        tenant_id=invoice.tenant_id,
        amount_p=amount_p,
        tax_p=tax_cents * P_PER_CENT,
        reason=reason,
        author=author,
    )
    if applied:
        payment = InvoicePayment(
            transaction_id=transaction.id,
            tenant_id=invoice.tenant_id,
            invoice_id=invoice.id,
            amount_cents=applied,
            tax_cents=tax_cents,
            paid_at=transaction.created_at,
        )
        session.add(payment)
        session.flush()
    return transaction


def mark_paid(
    session: Session, *, invoice_id: uuid.UUID, amount_p: int | None, reason: str, author: str
) -> LedgerTransaction:
    """Book a payment of what is due; `amount_p` None is all of it.

    Raises:
        Conflict: nothing of it is due.
        As `pay`.
    """
    invoice, paid = _locked(session, invoice_id)
    assert invoice.due_cents is not None
    due_p = (invoice.due_cents - paid) * P_PER_CENT
    if not due_p:
        raise Conflict(f"Nothing of {invoice.number} is due. To add to the balance, top it up.")
    amount_p = due_p if amount_p is None else amount_p
    return pay(session, invoice_id=invoice_id, amount_p=amount_p, reason=reason, author=author)


def paid_cents(session: Session, invoice_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Return what was paid of each invoice that something was paid of."""
    found = session.execute(
        select(InvoicePayment.invoice_id, func.sum(InvoicePayment.amount_cents))
        .where(InvoicePayment.invoice_id.in_(invoice_ids))
        .group_by(InvoicePayment.invoice_id)
    )
    return {invoice_id: int(cents) for invoice_id, cents in found}


def of(session: Session, *, invoice_id: uuid.UUID) -> list[InvoicePayment]:
    """Return an invoice's payments, oldest first."""
    return list(
        session.scalars(
            select(InvoicePayment)
            .where(InvoicePayment.invoice_id == invoice_id)
            .order_by(InvoicePayment.paid_at, InvoicePayment.transaction_id)
        )
    )


def standing(invoice: Invoice, paid: int, now: datetime | None = None) -> Standing:
    """Return how an invoice stands of which `paid` cents were paid."""
    if invoice.due_cents is None or invoice.due_at is None or invoice.state != "final":
        return "unfinished"
    if paid >= invoice.due_cents:
        return "paid"
    return "overdue" if invoice.due_at < (now or datetime.now(UTC)) else "due"


def _tax_until(invoice: Invoice, paid: int) -> int:
    assert invoice.due_cents is not None
    assert invoice.tax_cents is not None
    assert invoice.tax_credit_cents is not None
    due_tax_cents = max(0, invoice.tax_cents) - invoice.tax_credit_cents
    if not paid:
        return 0
    return tax_part(paid, due_cents=invoice.due_cents, due_tax_cents=due_tax_cents)


def _locked(session: Session, invoice_id: uuid.UUID) -> tuple[Invoice, int]:
    """Return an invoice and what was paid of it; its payments are one after another."""
    invoice = session.scalar(
        select(Invoice)
        .where(Invoice.id == invoice_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if invoice is None:
        raise NotFound(f"There is no invoice {invoice_id}.")
    if invoice.state != "final":
        raise Conflict("This invoice is not final yet: nothing of it is due.")
    return invoice, paid_cents(session, [invoice.id]).get(invoice.id, 0)
