"""Tables of invoices, their lines and numbers, of payments, and of who is billed.

A final invoice and its lines never change: the database refuses it. What happens afterwards, a
payment, is a row beside it.
"""

import uuid
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.accounts.models import BalanceType
from controlplane.db import Base, uuid7
from controlplane.tenants.models import Tenant

P_PER_CENT: Final = 10**10
SECTIONS: Final = ("carried", "sale", "granted", "funds")
# Every column that a final invoice tells, and its hash covers.
_TOLD = (
    "series, year, serial, number, issued_at, due_at, seller, customer, terms, until_entry_id,"
    " until_balance_p, left_from_id, opening_p, closing_p, received_p, given_p, charges_p,"
    " granted_p, carried_in_p, carried_out_p, total_cents, tax_basis_points, tax_cents,"
    " tax_credit_cents, tax_credit_left_cents, credit_cents, due_cents, hash"
)


class BillingProfile(Base):
    """Who is billed and how it is taxed; a tenant without one is billed by name, without tax."""

    __tablename__ = "billing_profiles"
    __table_args__ = (
        CheckConstraint("tax_basis_points BETWEEN 0 AND 10000", name="tax"),
        CheckConstraint(
            "reverse_charge_note IS NULL OR tax_basis_points = 0", name="reverse_charge"
        ),
        CheckConstraint("payment_days BETWEEN 0 AND 365", name="payment_days"),
    )

    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), primary_key=True)
    legal_name: Mapped[str]
    address: Mapped[str]
    tax_id: Mapped[str]
    tax_name: Mapped[str]
    tax_basis_points: Mapped[int]
    # Why there is no tax here: the customer owes it to its own state.
    reverse_charge_note: Mapped[str | None]
    # None: as the platform's settings say.
    payment_days: Mapped[int | None]
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class InvoiceCounter(Base):
    """The last number given in a series and year. It moves by one, with an invoice that has it."""

    __tablename__ = "invoice_counters"

    series: Mapped[str] = mapped_column(primary_key=True)
    year: Mapped[int] = mapped_column(primary_key=True)
    last: Mapped[int]


class Invoice(Base):
    """A tenant's month (UTC): `open` while it runs, `collecting` late usage, then `final`.

    `until_entry_id` is the account's last ledger entry that was looked at, `until_balance_p` the
    balance then. What was passed over, because its month comes later, begins at `left_from_id`.
    charges - granted + carried in = total + carried out, exactly.
    """

    __tablename__ = "invoices"
    __table_args__ = (
        UniqueConstraint("tenant_id", "month"),
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("number"),
        UniqueConstraint("series", "year", "serial"),
        CheckConstraint("state IN ('open', 'collecting', 'final')", name="state"),
        CheckConstraint("EXTRACT(day FROM month) = 1", name="month"),
        CheckConstraint(
            f"(state = 'final' AND num_nulls({_TOLD}) = 0)"
            f" OR (state <> 'final' AND num_nonnulls({_TOLD}) = 0)",
            name="told_when_final",
        ),
        CheckConstraint("terms IN ('prepaid', 'postpaid')", name="terms"),
        CheckConstraint(
            "charges_p - granted_p + carried_in_p"
            f" = total_cents::numeric * {P_PER_CENT} + carried_out_p",
            name="exact_total",
        ),
        CheckConstraint(f"abs(carried_out_p) < {P_PER_CENT}", name="carries_below_a_cent"),
        CheckConstraint("closing_p = opening_p + received_p - charges_p", name="exact_balance"),
        CheckConstraint(
            "due_cents >= 0 AND due_cents = CASE terms WHEN 'prepaid' THEN 0 ELSE"
            " total_cents - credit_cents + greatest(tax_cents, 0) - tax_credit_cents END",
            name="exact_due",
        ),
        Index("ix_invoices_unfinished", "month", postgresql_where=text("state <> 'final'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id))
    month: Mapped[date]  # its first day
    state: Mapped[str] = mapped_column(default="open")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # Why it could not be made final; a person must look.
    refused: Mapped[str | None]

    series: Mapped[str | None]
    year: Mapped[int | None]
    serial: Mapped[int | None]
    number: Mapped[str | None]
    issued_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    seller: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    customer: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    terms: Mapped[str | None]

    until_entry_id: Mapped[int | None] = mapped_column(BigInteger)
    until_balance_p: Mapped[int | None] = mapped_column(BalanceType)
    left_from_id: Mapped[int | None] = mapped_column(BigInteger)
    # The account by this invoice and those before: top-ups, payments and grants received, of which
    # grants were given.
    opening_p: Mapped[int | None] = mapped_column(BalanceType)
    received_p: Mapped[int | None] = mapped_column(BalanceType)
    given_p: Mapped[int | None] = mapped_column(BalanceType)
    closing_p: Mapped[int | None] = mapped_column(BalanceType)

    charges_p: Mapped[int | None] = mapped_column(BalanceType)
    granted_p: Mapped[int | None] = mapped_column(BalanceType)
    carried_in_p: Mapped[int | None] = mapped_column(BalanceType)
    carried_out_p: Mapped[int | None] = mapped_column(BalanceType)
    total_cents: Mapped[int | None] = mapped_column(BigInteger)
    # Prepaid: within the total; postpaid: on top of it.
    tax_name: Mapped[str | None]
    tax_basis_points: Mapped[int | None]
    tax_note: Mapped[str | None]
    tax_cents: Mapped[int | None] = mapped_column(BigInteger)
    # Tax of earlier credit notes: what of it reduces this amount due, and what is left of it.
    tax_credit_cents: Mapped[int | None] = mapped_column(BigInteger)
    tax_credit_left_cents: Mapped[int | None] = mapped_column(BigInteger)
    # What of the total the balance had paid already.
    credit_cents: Mapped[int | None] = mapped_column(BigInteger)
    due_cents: Mapped[int | None] = mapped_column(BigInteger)
    hash: Mapped[bytes | None]


class InvoiceLine(Base):
    """A sum of ledger entries that are alike. `amount_p` above zero is owed by the customer.

    Sections: `carried` from the invoice before; `sale`, what was used and what was taken back;
    `granted`, the part of it that given money paid; `funds`, what came in. Over sales and funds the
    lines sum to minus the sum of their entries; over all but funds to the total and what it
    carries.
    """

    __tablename__ = "invoice_lines"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "invoice_id"], [Invoice.tenant_id, Invoice.id]),
        CheckConstraint(f"section IN {SECTIONS}", name="section"),
    )

    invoice_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID]
    section: Mapped[str]
    kind: Mapped[str]  # of the ledger
    month: Mapped[date]  # in which it was used; before the invoice's: it came late
    late: Mapped[bool]
    project_id: Mapped[uuid.UUID | None]
    project: Mapped[str | None]
    api_key_id: Mapped[uuid.UUID | None]
    api_key: Mapped[str | None]
    model: Mapped[str | None]
    path: Mapped[str | None]
    band: Mapped[str | None]
    meter: Mapped[str]  # hit, miss, output, request; on_demand, spot; or the kind
    resource: Mapped[str | None]  # the GPU configuration
    detail: Mapped[str | None]  # the deployment, or the reason
    quantity: Mapped[int | None] = mapped_column(BalanceType)
    unit: Mapped[str | None]  # tokens, requests, ms
    rate_p: Mapped[int | None] = mapped_column(BigInteger)  # per unit; of ms per hour
    amount_p: Mapped[int] = mapped_column(BalanceType)


class InvoicePayment(Base):
    """What a payment paid of an invoice; append-only."""

    __tablename__ = "invoice_payments"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "invoice_id"], [Invoice.tenant_id, Invoice.id]),
        CheckConstraint("amount_cents > 0 AND tax_cents BETWEEN 0 AND amount_cents", name="sums"),
        Index("ix_invoice_payments_invoice_id", "invoice_id"),
    )

    transaction_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("ledger_transactions.id"), primary_key=True
    )
    tenant_id: Mapped[uuid.UUID]
    invoice_id: Mapped[uuid.UUID]
    amount_cents: Mapped[int] = mapped_column(BigInteger)
    tax_cents: Mapped[int] = mapped_column(BigInteger)  # of the amount
    paid_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class PaymentEvent(Base):
    """A payment provider's event that was dealt with; its id counts once, for ever."""

    __tablename__ = "payment_events"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[bytes]
    transaction_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("ledger_transactions.id"))
    received_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
