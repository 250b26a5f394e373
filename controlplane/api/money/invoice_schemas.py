"""What the REST API takes and gives of invoices and payments."""

import uuid
from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints

from controlplane.accounts.models import LedgerTransaction
from controlplane.amounts import Usd
from controlplane.api.schemas import Body, Name, Row
from controlplane.billing.invoices import paying
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.models import Invoice, InvoiceLine, InvoicePayment
from controlplane.billing.invoices.rendering.sheet import cents_to_usd
from controlplane.money import p_to_usd

_Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=1000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*$"
    ),
]


class InvoiceLineOut(Row):
    """Ledger entries that are alike, as one sum. Above zero is owed by the customer."""

    position: int
    section: str = Field(
        description="`sale` what was used or taken back; `carried` the fraction of a cent of the "
        "invoice before; `granted` what granted credit paid; `funds` money that came in"
    )
    kind: str = Field(description="the ledger's kind of transaction")
    month: date = Field(description="in which it was used")
    late: bool = Field(description="its own month's invoice was final already")
    project_id: uuid.UUID | None
    project: str | None
    api_key_id: uuid.UUID | None
    api_key: str | None
    model: str | None
    path: str | None
    band: str | None
    meter: str
    resource: str | None
    detail: str | None
    quantity: str | None
    unit: str | None
    rate_p: str | None = Field(description="p$ per unit; of `ms`, per hour")
    amount_usd: str
    amount_p: str

    @classmethod
    def of(cls, line: InvoiceLine) -> Self:
        told = {name: getattr(line, name) for name in cls.model_fields if hasattr(line, name)}
        exact = {
            name: None if told[name] is None else str(told[name])
            for name in ("quantity", "rate_p", "amount_p")
        }
        return cls(**(told | exact), amount_usd=p_to_usd(line.amount_p))


class InvoiceOut(BaseModel):
    """A tenant's month (UTC). Sums are null until it is final.

    charges - granted + carried_in = total + carried_out, exactly; only the total is rounded.
    """

    id: uuid.UUID
    tenant_id: uuid.UUID
    month: date
    state: str = Field(description="open, collecting late usage, or final")
    standing: str = Field(description="unfinished, due, overdue or paid")
    refused: str | None
    number: str | None
    issued_at: datetime | None
    due_at: datetime | None
    terms: str | None
    opening_balance_usd: str | None
    closing_balance_usd: str | None
    received_usd: str | None
    charges_usd: str | None
    charges_p: str | None
    granted_usd: str | None
    carried_in_p: str | None
    carried_out_p: str | None
    total_usd: str | None
    tax_name: str | None
    tax_basis_points: int | None
    tax_note: str | None
    tax_usd: str | None = Field(description="prepaid: within the total; postpaid: on top of it")
    credit_usd: str | None = Field(description="what of the total the balance had paid already")
    due_usd: str | None
    paid_usd: str
    sha256: str | None = Field(description="of the final invoice's canonical JSON")

    @classmethod
    def of(cls, invoice: Invoice, paid_cents: int) -> Self:
        return cls(
            **{name: getattr(invoice, name) for name in _AS_IS},
            standing=paying.standing(invoice, paid_cents),
            opening_balance_usd=_usd(invoice.opening_p),
            closing_balance_usd=_usd(invoice.closing_p),
            received_usd=_usd(invoice.received_p),
            charges_usd=_usd(invoice.charges_p),
            charges_p=_p(invoice.charges_p),
            granted_usd=_usd(invoice.granted_p),
            carried_in_p=_p(invoice.carried_in_p),
            carried_out_p=_p(invoice.carried_out_p),
            total_usd=_cents(invoice.total_cents),
            tax_usd=_cents(invoice.tax_cents),
            credit_usd=_cents(invoice.credit_cents),
            due_usd=_cents(invoice.due_cents),
            paid_usd=cents_to_usd(paid_cents),
            sha256=invoice.hash.hex() if invoice.hash else None,
        )


class InvoicePaymentOut(BaseModel):
    """What a payment paid of an invoice."""

    transaction_id: uuid.UUID
    amount_usd: str
    tax_usd: str
    paid_at: datetime

    @classmethod
    def of(cls, payment: InvoicePayment) -> Self:
        return cls(
            transaction_id=payment.transaction_id,
            amount_usd=cents_to_usd(payment.amount_cents),
            tax_usd=cents_to_usd(payment.tax_cents),
            paid_at=payment.paid_at,
        )


class InvoiceDetail(InvoiceOut):
    """An invoice with its lines and payments."""

    lines: list[InvoiceLineOut]
    payments: list[InvoicePaymentOut]

    @classmethod
    def of_document(cls, document: Document, payments: list[InvoicePayment]) -> Self:
        paid_cents = sum(payment.amount_cents for payment in payments)
        return cls(
            **InvoiceOut.of(document.invoice, paid_cents).model_dump(),
            lines=[InvoiceLineOut.of(line) for line in document.lines],
            payments=[InvoicePaymentOut.of(payment) for payment in payments],
        )


class NewPayment(Body):
    amount_usd: Usd | None = Field(
        default=None,
        examples=["25.00"],
        description="what came in, tax included; null: all that is due",
    )
    reason: Name = Field(default="payment", examples=["bank transfer 4711"])


class PaymentOut(BaseModel):
    transaction_id: uuid.UUID
    tenant_id: uuid.UUID
    reason: str
    author: str
    created_at: datetime

    @classmethod
    def of(cls, transaction: LedgerTransaction) -> Self:
        return cls(
            transaction_id=transaction.id,
            tenant_id=transaction.tenant_id,
            reason=transaction.reason,
            author=transaction.author,
            created_at=transaction.created_at,
        )


class ProfileIn(Body):
    """Who is billed and how it is taxed, for invoices that become final from now on."""

    legal_name: Name
    address: _Text = Field(default="", examples=["1 Main Street\nSpringfield"])
    tax_id: _Text = ""
    tax_name: Name = Field(default="Tax", examples=["VAT"])
    tax_basis_points: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0, examples=[1900], description="1,900 are 19 %"
    )
    reverse_charge_note: Name | None = Field(
        default=None, description="why no tax is told: the customer owes it to its own state"
    )
    payment_days: Annotated[int, Field(ge=0, le=365)] | None = Field(
        default=None, description="days until a postpaid invoice is due; null: the usual"
    )


class ProfileOut(Row):
    tenant_id: uuid.UUID
    legal_name: str
    address: str
    tax_id: str
    tax_name: str
    tax_basis_points: int
    reverse_charge_note: str | None
    payment_days: int | None
    changed_at: datetime | None  # null: nobody wrote one


InvoiceState = Literal["open", "collecting", "final"]

_AS_IS = (
    "id",
    "tenant_id",
    "month",
    "state",
    "refused",
    "number",
    "issued_at",
    "due_at",
    "terms",
    "tax_name",
    "tax_basis_points",
    "tax_note",
)


def _p(amount_p: int | None) -> str | None:
    return None if amount_p is None else str(amount_p)


def _usd(amount_p: int | None) -> str | None:
    return None if amount_p is None else p_to_usd(amount_p)


def _cents(cents: int | None) -> str | None:
    return None if cents is None else cents_to_usd(cents)
