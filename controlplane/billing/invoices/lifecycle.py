"""The life of invoices: open, collecting, final. Called by `jobs`, as often as it likes.

Rows are the queue. One transaction makes one invoice final: its lines, sums, number and hash commit
together or not at all, so whatever is cut short is done again and gives the same invoice.
"""

import logging
import uuid
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Date,
    Numeric,
    ScalarSelect,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_once
from sqlalchemy.orm import Session, aliased

from controlplane import metrics
from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.billing.invoices import documents, drafting, months, numbering, profiles
from controlplane.billing.invoices.amounts import Before, Totals, totals
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.drafting import Draft, Line, Seen
from controlplane.billing.invoices.models import (
    P_PER_CENT,
    SECTIONS,
    BillingProfile,
    Invoice,
    InvoiceLine,
    InvoicePayment,
)
from controlplane.billing.invoices.profiles import Seller
from controlplane.db import uuid7
from controlplane.tenants.models import Tenant
from controlplane.webhooks import outbox

_log = logging.getLogger(__name__)


def begin_months(session: Session, now: datetime, limit: int = 1000) -> int:
    """Open the running month of at most `limit` tenants, and those it missed; return how many.

    A tenant's first month is that of its account's first entry. A deleted one gets no more months.
    """
    running = months.month_of(now)
    newest = _newest_month()
    found = session.execute(
        select(Account.tenant_id, newest, _first_month(), Account.id)
        .join(Tenant, Tenant.id == Account.tenant_id)
        .where(Tenant.status != "deleted", func.coalesce(newest, date.min) < running)
        .order_by(Account.id)
        .limit(limit)
    ).all()
    rows = [
        {"id": uuid7(), "tenant_id": tenant_id, "month": month, "state": "open"}
        for tenant_id, last, first, _ in found
        for month in months.months(
            months.following(last) if last else min(first or running, running), running
        )
    ]
    if rows:
        session.execute(
            insert_once(Invoice).on_conflict_do_nothing(index_elements=["tenant_id", "month"]), rows
        )
    return len(found)


def end_months(session: Session, now: datetime) -> int:
    """Let the invoices of months that are over collect what comes late; return how many."""
    ended = session.execute(
        update(Invoice)
        .where(Invoice.state == "open", Invoice.month < months.month_of(now))
        .values(state="collecting")
        .returning(Invoice.id)
        .execution_options(synchronize_session=False)
    )
    return len(ended.all())


def finish_next(session: Session, now: datetime, seller: Seller) -> int:
    """Make one invoice final whose grace is over; return how many were dealt with.

    Several processes may do so at once: each claims an invoice of its own, its tenant's
    oldest. A month in which nothing moved gets no invoice. One that contradicts the balance is set
    aside.
    """
    earlier = aliased(Invoice)
    invoice = session.scalar(
        select(Invoice)
        .where(
            Invoice.state == "collecting",
            Invoice.refused.is_(None),
            Invoice.month < months.month_of(now - timedelta(hours=seller.grace_hours)),
            ~exists().where(
                earlier.tenant_id == Invoice.tenant_id,
                earlier.month < Invoice.month,
                earlier.state != "final",
            ),
        )
        .order_by(Invoice.month, Invoice.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Invoice)
        .execution_options(populate_existing=True)
    )
    if invoice is None:
        return 0
    previous = last_final(session, tenant_id=invoice.tenant_id)
    draft = drafting.draft(
        session, tenant_id=invoice.tenant_id, month=invoice.month, before=seen_by(previous)
    )
    _clear(session, invoice)
    if draft.drift_p:
        _refuse(invoice, draft)
    elif draft.lines:
        _finish(session, invoice, previous, draft, seller, now)
    else:
        session.delete(invoice)
    session.flush()
    return 1


def preview(session: Session, *, tenant_id: uuid.UUID, now: datetime, seller: Seller) -> Document:
    """Return the invoice that a tenant's running month would get now. Writes nothing.

    What months before it still collect is on it too, as late.

    Raises:
        NotFound: no such tenant.
    """
    profile = profiles.of(session, tenant_id=tenant_id)
    month = months.month_of(now)
    previous = last_final(session, tenant_id=tenant_id)
    draft = drafting.draft(session, tenant_id=tenant_id, month=month, before=seen_by(previous))
    invoice = Invoice(id=uuid7(), tenant_id=tenant_id, month=month, state="open", created_at=now)
    _tell(session, invoice, previous, draft, seller, profile)
    return Document(invoice, [InvoiceLine(**row) for row in _line_rows(invoice, draft)])


def last_final(session: Session, *, tenant_id: uuid.UUID) -> Invoice | None:
    """Return a tenant's newest final invoice, which the next one goes on from."""
    return session.scalar(
        select(Invoice)
        .where(Invoice.tenant_id == tenant_id, Invoice.state == "final")
        .order_by(Invoice.month.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def seen_by(invoice: Invoice | None) -> Seen:
    """Return up to where a final invoice saw the ledger."""
    if invoice is None:
        return Seen()
    assert invoice.until_entry_id is not None
    assert invoice.until_balance_p is not None
    assert invoice.left_from_id is not None
    return Seen(
        invoice.until_entry_id, invoice.until_balance_p, invoice.month, invoice.left_from_id
    )


def _finish(
    session: Session,
    invoice: Invoice,
    previous: Invoice | None,
    draft: Draft,
    seller: Seller,
    now: datetime,
) -> None:
    profile = profiles.of(session, tenant_id=invoice.tenant_id)
    # The row is written once, when all of it is known: the database takes no half of it.
    with session.no_autoflush:
        _tell(session, invoice, previous, draft, seller, profile)
        rows = _line_rows(invoice, draft)
        session.execute(insert(InvoiceLine).execution_options(render_nulls=True), rows)
        days = seller.payment_days if profile.payment_days is None else profile.payment_days
        invoice.issued_at, invoice.due_at = now, now + timedelta(days=days)
        number = numbering.take(session, seller.series, now.year)
        invoice.series, invoice.year, invoice.serial = number.series, number.year, number.serial
        invoice.number = str(number)
        invoice.hash = documents.digest(Document(invoice, [InvoiceLine(**row) for row in rows]))
        invoice.state = "final"
        session.flush()
    outbox.notify(
        session,
        tenant_id=invoice.tenant_id,
        kind="invoice.finalized",
        body={"invoice_id": str(invoice.id), "number": str(number), "month": str(invoice.month)},
        once=f"invoice:{invoice.id}",
    )
    metrics.FINAL_INVOICES.inc()
    _log.info("invoice_final", extra={"invoice": str(number), "tenant_id": invoice.tenant_id})


def _tell(
    session: Session,
    invoice: Invoice,
    previous: Invoice | None,
    draft: Draft,
    seller: Seller,
    profile: BillingProfile,
) -> None:
    """Write everything on the invoice but its number, dates and hash."""
    terms = session.execute(
        select(Account.terms).where(Account.tenant_id == invoice.tenant_id)
    ).scalar_one()
    before = _before(session, invoice, previous)
    sums = draft.sums
    decided = totals(
        sums, before, prepaid=terms == "prepaid", tax_basis_points=profile.tax_basis_points
    )
    invoice.terms, invoice.seller, invoice.customer = terms, seller.told(), profiles.told(profile)
    invoice.until_entry_id, invoice.until_balance_p = draft.seen.until_id, draft.seen.balance_p
    invoice.left_from_id = draft.seen.left_from_id
    invoice.opening_p = before.closing_p
    invoice.received_p, invoice.given_p = sums.received_p, sums.given_p
    invoice.closing_p = before.closing_p + sums.received_p - sums.charges_p
    invoice.charges_p, invoice.granted_p = sums.charges_p, sums.granted_p
    invoice.carried_in_p = before.carried_p
    invoice.tax_name, invoice.tax_note = profile.tax_name, profile.reverse_charge_note
    invoice.tax_basis_points = profile.tax_basis_points
    for name in Totals.__slots__:
        setattr(invoice, name, getattr(decided, name))


def _before(session: Session, invoice: Invoice, previous: Invoice | None) -> Before:
    if previous is None:
        return Before()
    assert previous.carried_out_p is not None
    assert previous.closing_p is not None
    assert previous.tax_credit_left_cents is not None
    paid_in_p = session.execute(
        select(
            func.coalesce(
                func.sum(
                    Invoice.received_p
                    - Invoice.given_p
                    - cast(Invoice.credit_cents, Numeric) * P_PER_CENT
                ),
                0,
            )
        ).where(Invoice.tenant_id == invoice.tenant_id, Invoice.state == "final")
    ).scalar_one()
    applied_cents = session.execute(
        select(
            func.coalesce(func.sum(InvoicePayment.amount_cents - InvoicePayment.tax_cents), 0)
        ).where(
            InvoicePayment.tenant_id == invoice.tenant_id,
            InvoicePayment.paid_at < months.end(invoice.month),
        )
    ).scalar_one()
    return Before(
        carried_p=previous.carried_out_p,
        closing_p=previous.closing_p,
        paid_in_p=int(paid_in_p or 0) - int(applied_cents) * P_PER_CENT,
        tax_credit_cents=previous.tax_credit_left_cents,
    )


def _line_rows(invoice: Invoice, draft: Draft) -> list[dict[str, Any]]:
    """Return all lines in their places: of the ledger, of what is carried, of what was given."""
    lines = list(draft.lines)
    for section, amount_p in (
        ("carried", invoice.carried_in_p),
        ("granted", -draft.sums.granted_p),
    ):
        if amount_p:
            lines.append(Line(section, section, invoice.month, False, section, amount_p))
    lines.sort(key=lambda line: SECTIONS.index(line.section))
    owner = {"invoice_id": invoice.id, "tenant_id": invoice.tenant_id}
    return [
        {**owner, "position": position, **asdict(line)}
        for position, line in enumerate(lines, start=1)
    ]


def _clear(session: Session, invoice: Invoice) -> None:
    """Take off whatever somebody wrote on it by hand."""
    session.execute(delete(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id))


def _refuse(invoice: Invoice, draft: Draft) -> None:
    invoice.refused = (
        f"The entries up to {draft.seen.until_id} and the balance differ by {draft.drift_p} p$."
    )
    metrics.REFUSED_INVOICES.inc()
    _log.error("invoice_refused", extra={"invoice": invoice.id, "reason": invoice.refused})


def _newest_month() -> ScalarSelect[date]:
    return (
        select(func.max(Invoice.month))
        .where(Invoice.tenant_id == Account.tenant_id)
        .scalar_subquery()
    )


def _first_month() -> ScalarSelect[date]:
    moment = (
        select(LedgerTransaction.created_at)
        .join(LedgerEntry, LedgerEntry.transaction_id == LedgerTransaction.id)
        .where(LedgerEntry.account_id == Account.id)
        .order_by(LedgerEntry.id)
        .limit(1)
    )
    return select(
        cast(func.date_trunc("month", moment.scalar_subquery(), "UTC"), Date)
    ).scalar_subquery()
