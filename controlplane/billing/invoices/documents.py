"""An invoice with its lines, its canonical form and its hash. Called by `lifecycle` and the API."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.billing.invoices.models import Invoice, InvoiceLine
from controlplane.errors import NotFound

# What a final invoice tells; the hash itself and the state's moments are not part of it.
_TOLD = tuple(
    column.name
    for column in Invoice.__table__.columns
    if column.name not in ("hash", "created_at", "refused", "state")
)
_LINE = tuple(column.name for column in InvoiceLine.__table__.columns if column.name != "tenant_id")


@dataclass(frozen=True, slots=True)
class Document:
    """What renderings show; the same for ever once the invoice is final."""

    invoice: Invoice
    lines: Sequence[InvoiceLine]


def get(session: Session, *, tenant_id: uuid.UUID | None, invoice_id: uuid.UUID) -> Invoice:
    """Return an invoice: of this tenant, or with None of any.

    Raises:
        NotFound: unknown, or another tenant's.
    """
    invoice = session.get(Invoice, invoice_id)
    if invoice is None or tenant_id not in (None, invoice.tenant_id):
        raise NotFound(f"There is no invoice {invoice_id}.")
    return invoice


def listing(
    session: Session,
    *,
    tenant_id: uuid.UUID | None,
    state: str | None = None,
    after: uuid.UUID | None = None,
    limit: int | None = None,
) -> list[Invoice]:
    """Return invoices, newest first, those older than the id `after`."""
    query = select(Invoice).order_by(Invoice.id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(Invoice.tenant_id == tenant_id)
    if state is not None:
        query = query.where(Invoice.state == state)
    if after is not None:
        query = query.where(Invoice.id < after)
    return list(session.scalars(query))


def document(session: Session, invoice: Invoice) -> Document:
    """Return an invoice with its lines, in their order."""
    lines = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id)
        .order_by(InvoiceLine.position)
        .execution_options(populate_existing=True)
    )
    return Document(invoice, lines.all())


def canonical(document: Document) -> bytes:
    """Return all that a final invoice tells as JSON, with one spelling: what its hash is of."""
    told = {name: _plain(getattr(document.invoice, name)) for name in _TOLD}
    told["lines"] = [
        {name: _plain(getattr(line, name)) for name in _LINE} for line in document.lines
    ]
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(document: Document) -> bytes:
    """Return the SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(document)).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str | dict) or value is None:
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    # Sums are wider than what JSON readers keep exactly.
    return str(value)
