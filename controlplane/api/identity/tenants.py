"""Admin routes of tenants and their top-ups."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Header

from controlplane.accounts import ledger, opening
from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, page
from controlplane.api.money.statements import AccountOut, BalanceOut, TopUpOut
from controlplane.api.schemas import NewTenant, NewTopUp, Page, TenantOut, TenantStatus
from controlplane.deployments import holdings
from controlplane.money import p_to_usd, usd_to_p
from controlplane.tenants import tenants

router = APIRouter(prefix="/admin/v1/tenants", tags=["tenants"], route_class=Contract)

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="the same key again is the same top-up"),
]


@router.post("", status_code=201)
def create_tenant(body: NewTenant, session: Db, admin: Admin) -> TenantOut:
    """Make a tenant with an empty account."""
    return TenantOut.model_validate(opening.create_tenant(session, name=body.name))


@router.get("")
def list_tenants(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[TenantOut]:
    """List tenants in the order they were made."""
    found = tenants.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=TenantOut.model_validate, cursor=lambda tenant: tenant.id)


@router.get("/{tenant_id}")
def get_tenant(tenant_id: uuid.UUID, session: Db, admin: Admin) -> TenantOut:
    """Show a tenant."""
    return TenantOut.model_validate(tenants.get(session, tenant_id=tenant_id))


@router.patch("/{tenant_id}")
def set_tenant_status(
    tenant_id: uuid.UUID, body: TenantStatus, session: Db, admin: Admin
) -> TenantOut:
    """Suspend a tenant, or make it active again. Within a second of its suspension neither its keys
    nor its people open anything; requests that are running finish, and are billed."""
    tenant = tenants.set_status(session, tenant_id=tenant_id, status=body.status)
    return TenantOut.model_validate(tenant)


@router.get("/{tenant_id}/balance")
def get_balance(tenant_id: uuid.UUID, session: Db, admin: Admin) -> AccountOut:
    """Show a tenant's money, and what is held of it for what."""
    return AccountOut.told(*holdings.balance(session, tenant_id=tenant_id))


@router.post("/{tenant_id}/top-ups", status_code=201)
def top_up(
    tenant_id: uuid.UUID,
    body: NewTopUp,
    session: Db,
    admin: Admin,
    idempotency_key: IdempotencyKey = None,
) -> TopUpOut:
    """Credit a tenant. Send an Idempotency-Key to retry without crediting twice."""
    amount_p = usd_to_p(body.amount_usd)
    transaction = ledger.top_up(
        session,
        tenant_id=tenant_id,
        amount_p=amount_p,
        reason=body.reason,
        author=admin.name,
        idempotency_key=idempotency_key,
    )
    return TopUpOut(
        transaction_id=transaction.id,
        tenant_id=tenant_id,
        amount_usd=p_to_usd(amount_p),
        amount_p=str(amount_p),
        reason=transaction.reason,
        author=transaction.author,
        created_at=transaction.created_at,
        balance=BalanceOut.of(ledger.balance(session, tenant_id=tenant_id)),
    )
