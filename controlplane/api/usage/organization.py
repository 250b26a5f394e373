"""The organization's usage and costs in OpenAI's shape, for tenants and for admins.

OpenAI's own clients read it: given a tenant's key as their admin key, `client.admin.organization`
tells of the tenant. Admins name the tenant.
"""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db, Tenant
from controlplane.api.usage.organization_answers import usage_page
from controlplane.api.usage.organization_queries import CostsQuery, UsageQuery
from controlplane.api.usage.organization_schemas import CompletionsPage, Costs, CostsPage
from controlplane.billing.costs import costs
from controlplane.tenants import tenants
from controlplane.usage import rollups

router = APIRouter(prefix="/v1/organization", tags=["organization"], route_class=Contract)
admin_router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}/organization", tags=["organization"], route_class=Contract
)


@router.get("/usage/completions", response_model=CompletionsPage)
def get_usage(session: Db, tenant: Tenant, asked: Annotated[UsageQuery, Query()]) -> Response:
    """Show tokens and requests by minute, hour or day, by when requests started.

    Exact up to the last settled request, a second or two ago. Buckets are whole, in UTC; those
    without usage are there with no results.
    """
    return _usage(session, tenant.tenant_id, asked)


@router.get("/costs")
def get_costs(session: Db, tenant: Tenant, asked: Annotated[CostsQuery, Query()]) -> CostsPage:
    """Show what was spent by day, UTC: tokens by when requests started, GPU time, storage and
    commitments by when they were booked, less what was given back.
    """
    return _costs(session, tenant.tenant_id, asked)


@admin_router.get("/usage/completions", response_model=CompletionsPage)
def get_usage_of_tenant(
    tenant_id: uuid.UUID, session: Db, admin: Admin, asked: Annotated[UsageQuery, Query()]
) -> Response:
    """Show a tenant's tokens and requests, as it sees them itself."""
    tenants.get(session, tenant_id=tenant_id)
    return _usage(session, tenant_id, asked)


@admin_router.get("/costs")
def get_costs_of_tenant(
    tenant_id: uuid.UUID, session: Db, admin: Admin, asked: Annotated[CostsQuery, Query()]
) -> CostsPage:
    """Show what a tenant spent by day, as it sees it itself."""
    tenants.get(session, tenant_id=tenant_id)
    return _costs(session, tenant_id, asked)


def _usage(session: Session, tenant_id: uuid.UUID, asked: UsageQuery) -> Response:
    window, groups = asked.window(), asked.groups
    found = rollups.sums(
        session,
        tenant_id=tenant_id,
        since=window.since,
        until=window.until,
        width=window.width,
        group_by=groups,
        filters=asked.filters,
    )
    return Response(usage_page(window, found, groups), media_type="application/json")


def _costs(session: Session, tenant_id: uuid.UUID, asked: CostsQuery) -> CostsPage:
    window = asked.window()
    found = costs(
        session,
        tenant_id=tenant_id,
        since=window.since,
        until=window.until,
        group_by=asked.groups,
        filters=asked.filters,
    )
    return CostsPage.of(
        window,
        {
            day: [Costs.of(group, amount_p) for group, amount_p in groups.items()]
            for day, groups in found.items()
        },
    )
