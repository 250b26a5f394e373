"""Routes of invoices: admins' of all tenants, a tenant's of its own."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy.orm import Session

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, OfTenant, State, Tenant, page
from controlplane.api.money.invoice_schemas import (
    InvoiceDetail,
    InvoiceOut,
    InvoiceState,
    NewPayment,
    PaymentOut,
    ProfileIn,
    ProfileOut,
)
from controlplane.api.schemas import Page
from controlplane.billing.invoices import documents, lifecycle, paying, profiles
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.models import Invoice
from controlplane.billing.invoices.rendering import page as html_page
from controlplane.billing.invoices.rendering import table
from controlplane.errors import Conflict
from controlplane.money import usd_to_p

router = APIRouter(prefix="/admin/v1", tags=["invoices"], route_class=Contract)
tenant_router = APIRouter(prefix="/v1/account", tags=["invoices"], route_class=Contract)

OfState = Annotated[InvoiceState | None, Query(description="only those in this state")]
Rendering = Literal["pdf", "html", "csv"]


def _pdf(document: Document) -> bytes:
    # Needs a tenth of all that a process of the REST API and of the gateway imports.
    from controlplane.billing.invoices.rendering import paper

    return paper.render(document)


_RENDERERS: Final = {
    "pdf": ("application/pdf", _pdf),
    "html": ("text/html; charset=utf-8", html_page.render),
    "csv": ("text/csv; charset=utf-8", table.render),
}
_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {media.split(";")[0]: {} for media, _ in _RENDERERS.values()},
        "description": "the invoice as a file; the same bytes for ever",
    }
}


@router.get("/invoices")
def list_invoices(
    session: Db,
    admin: Admin,
    tenant_id: OfTenant = None,
    state: OfState = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[InvoiceOut]:
    """List invoices, newest first."""
    return _listed(session, tenant_id, state, after, limit)


@router.get("/invoices/{invoice_id}.{rendering}", response_class=Response, responses=_FILES)
def render_invoice(
    invoice_id: uuid.UUID, rendering: Rendering, session: Db, admin: Admin
) -> Response:
    """Return a final invoice as PDF, as an HTML page that prints well, or its lines as CSV."""
    return _rendered(session, None, invoice_id, rendering)


@router.get("/invoices/{invoice_id}")
def get_invoice(invoice_id: uuid.UUID, session: Db, admin: Admin) -> InvoiceDetail:
    """Show an invoice with its lines and payments; an unfinished one has none yet."""
    return _shown(session, documents.get(session, tenant_id=None, invoice_id=invoice_id))


@router.post("/invoices/{invoice_id}/payments", status_code=201)
def pay_invoice(invoice_id: uuid.UUID, body: NewPayment, session: Db, admin: Admin) -> PaymentOut:
    """Book a payment of a final invoice, whole or in part.

    What is more than the amount due stays on the tenant's balance and is taken off its next
    invoice.
    """
    transaction = paying.mark_paid(
        session,
        invoice_id=invoice_id,
        amount_p=None if body.amount_usd is None else usd_to_p(body.amount_usd),
        reason=body.reason,
        author=admin.name,
    )
    return PaymentOut.of(transaction)


@router.get("/tenants/{tenant_id}/invoice-preview")
def preview_invoice(tenant_id: uuid.UUID, session: Db, admin: Admin, state: State) -> InvoiceDetail:
    """Show what a tenant's running month would be billed now. It is not an invoice."""
    return _previewed(session, tenant_id, state.seller)


@router.get("/tenants/{tenant_id}/billing-profile")
def get_billing_profile(tenant_id: uuid.UUID, session: Db, admin: Admin) -> ProfileOut:
    """Show who is billed for a tenant and how it is taxed."""
    return ProfileOut.model_validate(profiles.of(session, tenant_id=tenant_id))


@router.put("/tenants/{tenant_id}/billing-profile")
def put_billing_profile(
    tenant_id: uuid.UUID, body: ProfileIn, session: Db, admin: Admin
) -> ProfileOut:
    """Write who is billed for a tenant and how it is taxed; final invoices keep what they say."""
    profile = profiles.put(session, tenant_id=tenant_id, **body.model_dump())
    return ProfileOut.model_validate(profile)


@tenant_router.get("/invoices")
def list_my_invoices(
    session: Db,
    tenant: Tenant,
    state: OfState = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[InvoiceOut]:
    """List the account's invoices, newest first."""
    return _listed(session, tenant.tenant_id, state, after, limit)


@tenant_router.get("/invoices/{invoice_id}.{rendering}", response_class=Response, responses=_FILES)
def render_my_invoice(
    invoice_id: uuid.UUID, rendering: Rendering, session: Db, tenant: Tenant
) -> Response:
    """Return a final invoice as PDF, as an HTML page that prints well, or its lines as CSV."""
    return _rendered(session, tenant.tenant_id, invoice_id, rendering)


@tenant_router.get("/invoices/{invoice_id}")
def get_my_invoice(invoice_id: uuid.UUID, session: Db, tenant: Tenant) -> InvoiceDetail:
    """Show an invoice with its lines and payments; an unfinished one has none yet."""
    invoice = documents.get(session, tenant_id=tenant.tenant_id, invoice_id=invoice_id)
    return _shown(session, invoice)


@tenant_router.get("/invoice-preview")
def preview_my_invoice(session: Db, tenant: Tenant, state: State) -> InvoiceDetail:
    """Show what the running month would be billed now. It is not an invoice."""
    return _previewed(session, tenant.tenant_id, state.seller)


@tenant_router.get("/billing-profile")
def get_my_billing_profile(session: Db, tenant: Tenant) -> ProfileOut:
    """Show who is billed and how it is taxed."""
    return ProfileOut.model_validate(profiles.of(session, tenant_id=tenant.tenant_id))


def _listed(
    session: Session,
    tenant_id: uuid.UUID | None,
    state: str | None,
    after: uuid.UUID | None,
    limit: int,
) -> Page[InvoiceOut]:
    found = documents.listing(
        session, tenant_id=tenant_id, state=state, after=after, limit=limit + 1
    )
    paid = paying.paid_cents(session, [invoice.id for invoice in found])
    return page(
        found,
        limit,
        show=lambda invoice: InvoiceOut.of(invoice, paid.get(invoice.id, 0)),
        cursor=lambda invoice: invoice.id,
    )


def _shown(session: Session, invoice: Invoice) -> InvoiceDetail:
    return InvoiceDetail.of_document(
        documents.document(session, invoice), paying.of(session, invoice_id=invoice.id)
    )


def _previewed(session: Session, tenant_id: uuid.UUID, seller: profiles.Seller) -> InvoiceDetail:
    now = datetime.now(UTC)
    return InvoiceDetail.of_document(
        lifecycle.preview(session, tenant_id=tenant_id, now=now, seller=seller), []
    )


def _rendered(
    session: Session, tenant_id: uuid.UUID | None, invoice_id: uuid.UUID, rendering: str
) -> Response:
    invoice = documents.get(session, tenant_id=tenant_id, invoice_id=invoice_id)
    if invoice.state != "final":
        raise Conflict("This invoice is not final yet: see the preview for what it would say.")
    media_type, render = _RENDERERS[rendering]
    return Response(
        render(documents.document(session, invoice)),
        media_type=media_type,
        headers={
            "content-disposition": f'inline; filename="{invoice.number}.{rendering}"',
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
            "x-content-type-options": "nosniff",
        },
    )
