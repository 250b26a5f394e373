"""Routes that read the audit chains: an admin all of them, a tenant its own."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import Field

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterNumber, Db, Limit, OfTenant, Tenant, page
from controlplane.api.schemas import Page, Row
from controlplane.audit import events
from controlplane.audit.models import AuditEvent

admin_router = APIRouter(prefix="/admin/v1", tags=["audit"], route_class=Contract)
tenant_router = APIRouter(prefix="/v1/account", tags=["audit"], route_class=Contract)

_Named = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class AuditEventOut(Row):
    """One thing that somebody did. `hash` covers it and the event before it in its chain."""

    id: int = Field(description="orders events of all chains; the cursor of listings")
    tenant_id: uuid.UUID | None = Field(description="whose chain; null: the platform's")
    seq: int = Field(description="place in the chain, from 1, without a gap")
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    previous_hash: str = Field(description="SHA-256 in hex")
    hash: str = Field(description="SHA-256 in hex")

    @classmethod
    def of(cls, event: AuditEvent) -> Self:
        return cls(
            id=event.id,
            tenant_id=event.tenant_id,
            seq=event.seq,
            at=event.at,
            actor=event.actor,
            action=event.action,
            subject=event.subject,
            details=event.details,
            previous_hash=event.previous_hash.hex(),
            hash=event.hash.hex(),
        )


@admin_router.get("/audit")
def list_all_events(
    session: Db,
    admin: Admin,
    tenant_id: OfTenant = None,
    actor: _Named = None,
    action: _Named = None,
    subject: _Named = None,
    after: AfterNumber = None,
    limit: Limit = 100,
) -> Page[AuditEventOut]:
    """List who did what, newest first: to one tenant, or to all and the platform."""
    found = events.listing(
        session,
        tenant_id=tenant_id,
        actor=actor,
        action=action,
        subject=subject,
        after=after,
        limit=limit + 1,
    )
    return page(found, limit, show=AuditEventOut.of, cursor=lambda event: event.id)


@tenant_router.get("/audit")
def list_own_events(
    session: Db,
    tenant: Tenant,
    action: _Named = None,
    after: AfterNumber = None,
    limit: Limit = 100,
) -> Page[AuditEventOut]:
    """List what was done in this account and to it, newest first."""
    found = events.listing(
        session, tenant_id=tenant.tenant_id, action=action, after=after, limit=limit + 1
    )
    return page(found, limit, show=AuditEventOut.of, cursor=lambda event: event.id)
