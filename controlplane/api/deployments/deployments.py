"""A tenant's deployments: dedicated ones and bare GPU endpoints, and what they cost."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from sqlalchemy.orm import Session

from controlplane.api.contract.route import Contract
from controlplane.api.deployments.deployment_schemas import (
    DeploymentChange,
    DeploymentOut,
    EventOut,
    EventsOut,
    NewDeployment,
    NewSSHKey,
    PreviewOut,
)
from controlplane.api.deployments.gpu_schemas import (
    DeploymentUsage,
    GpuConfigurationOut,
    GpuTimeOut,
)
from controlplane.api.deps import AfterId, Db, Limit, State, Tenant, page
from controlplane.api.schemas import Page
from controlplane.crd.base import Path
from controlplane.deployments import history, orders, rows, standing
from controlplane.deployments.models import Deployment
from controlplane.deployments.orders import Order

router = APIRouter(prefix="/v1", tags=["deployments"], route_class=Contract)

DryRun = Annotated[bool, Query(description="tell what it would get and cost; order nothing")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key again is the same order",
    ),
]
# A dry run is told from an order by its status, too.
PREVIEW: dict[int | str, dict[str, Any]] = {200: {"model": PreviewOut, "description": "A dry run"}}


@router.get("/gpu-configurations")
def list_configurations(session: Db, tenant: Tenant) -> Page[GpuConfigurationOut]:
    """List the GPU configurations there are, with price and room."""
    return configurations(session)


@router.post("/deployments", status_code=201, responses=PREVIEW)
def create_deployment(
    body: NewDeployment,
    session: Db,
    tenant: Tenant,
    state: State,
    response: Response,
    dry_run: DryRun = False,
    idempotency_key: IdempotencyKey = None,
) -> DeploymentOut | PreviewOut:
    """Order a deployment. It is billed from its first proof that it serves, not before."""
    order = Order(tenant.tenant_id, body.name, Path(body.path), body.spec, by_tenant=True)
    if dry_run:
        response.status_code = 200
        return PreviewOut.of(order.path, orders.preview(session, order, state.terms))
    placed = orders.place(session, order, state.terms, idempotency_key=idempotency_key)
    return _told(session, placed)


@router.get("/deployments")
def list_deployments(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 100
) -> Page[DeploymentOut]:
    """List deployments that are not deleted, oldest first."""
    found = rows.listing(session, tenant_id=tenant.tenant_id, after=after, limit=limit + 1)
    why = standing.why_stopped(session, found)
    return page(
        found,
        limit,
        show=lambda row: DeploymentOut.of(row, why.get(row.id)),
        cursor=lambda row: row.id,
    )


@router.get("/deployments/{deployment_id}")
def get_deployment(deployment_id: uuid.UUID, session: Db, tenant: Tenant) -> DeploymentOut:
    """Show a deployment, deleted ones too."""
    return _told(session, _own(session, tenant, deployment_id))


@router.patch("/deployments/{deployment_id}")
def change_deployment(
    deployment_id: uuid.UUID, body: DeploymentChange, session: Db, tenant: Tenant
) -> DeploymentOut:
    """Change a deployment. What runs is replaced step by step, no stream is lost."""
    row = _own(session, tenant, deployment_id, to_change=True)
    return _told(session, orders.change(session, row, body.spec, by_tenant=True))


@router.delete("/deployments/{deployment_id}", status_code=202)
def delete_deployment(deployment_id: uuid.UUID, session: Db, tenant: Tenant) -> DeploymentOut:
    """Delete a deployment: requests in flight finish, volumes go, its bill stays."""
    row = _own(session, tenant, deployment_id, to_change=True)
    return _told(session, rows.delete(session, row))


@router.get("/deployments/{deployment_id}/events")
def list_events(deployment_id: uuid.UUID, session: Db, tenant: Tenant) -> EventsOut:
    """Tell what happened lately, newest first."""
    row = _own(session, tenant, deployment_id)
    return EventsOut(data=[EventOut.of(it) for it in history.happenings(row)])


@router.get("/deployments/{deployment_id}/usage")
def get_usage(
    deployment_id: uuid.UUID,
    session: Db,
    tenant: Tenant,
    after: AfterId = None,
    limit: Limit = 100,
) -> DeploymentUsage:
    """Show what a deployment cost: the sum, and each replica's time, newest first."""
    return usage(session, _own(session, tenant, deployment_id), after, limit)


@router.post("/deployments/{deployment_id}/ssh-keys", status_code=201)
def add_ssh_key(
    deployment_id: uuid.UUID, body: NewSSHKey, session: Db, tenant: Tenant
) -> DeploymentOut:
    """Let a key into a bare endpoint; one of the same name is replaced."""
    row = _own(session, tenant, deployment_id, to_change=True)
    return _told(
        session, orders.add_ssh_key(session, row, name=body.name, public_key=body.public_key)
    )


@router.delete("/deployments/{deployment_id}/ssh-keys/{name}")
def remove_ssh_key(
    deployment_id: uuid.UUID, name: str, session: Db, tenant: Tenant
) -> DeploymentOut:
    """Take a key from a bare endpoint, which ends its sessions."""
    row = _own(session, tenant, deployment_id, to_change=True)
    return _told(session, orders.remove_ssh_key(session, row, name=name))


def configurations(session: Db) -> Page[GpuConfigurationOut]:
    """Return the catalogue on one page; it is short."""
    market = orders.market(session)
    shown = [GpuConfigurationOut.of(offer, market) for offer in market.offers.values()]
    return Page(data=shown, next=None)


def usage(session: Db, row: Deployment, after: uuid.UUID | None, limit: int) -> DeploymentUsage:
    """Return a page of a deployment's GPU time, with the sums of all of it."""
    found = history.intervals(session, row, after=after, limit=limit + 1)
    shown = page(found, limit, show=GpuTimeOut.of, cursor=lambda interval: interval.id)
    return DeploymentUsage.of(history.totals(session, row), shown.data, shown.next)


def _own(
    session: Db, tenant: Tenant, deployment_id: uuid.UUID, *, to_change: bool = False
) -> Deployment:
    return rows.get(
        session, deployment_id=deployment_id, tenant_id=tenant.tenant_id, to_change=to_change
    )


def _told(session: Session, row: Deployment) -> DeploymentOut:
    return DeploymentOut.of(row, standing.why_stopped(session, [row]).get(row.id))
