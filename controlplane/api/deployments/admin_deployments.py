"""Admin routes of deployments: every tenant's, and the platform's own serverless pools."""

import uuid

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from controlplane.api.contract.route import Contract
from controlplane.api.deployments.deployment_schemas import (
    DeploymentChange,
    DeploymentOut,
    EventOut,
    EventsOut,
    NewAnyDeployment,
    PreviewOut,
)
from controlplane.api.deployments.deployments import (
    PREVIEW,
    DryRun,
    IdempotencyKey,
    configurations,
    usage,
)
from controlplane.api.deployments.gpu_schemas import DeploymentUsage, GpuConfigurationOut
from controlplane.api.deps import Admin, AfterId, Db, Limit, OfTenant, State, page
from controlplane.api.schemas import Page
from controlplane.deployments import history, orders, rows, standing
from controlplane.deployments.models import Deployment
from controlplane.deployments.orders import Order

router = APIRouter(prefix="/admin/v1", tags=["deployments"], route_class=Contract)


@router.get("/gpu-configurations")
def list_configurations(session: Db, admin: Admin) -> Page[GpuConfigurationOut]:
    """List the cluster's GPU configurations, with price and room."""
    return configurations(session)


@router.post("/deployments", status_code=201, responses=PREVIEW)
def create_deployment(
    body: NewAnyDeployment,
    session: Db,
    admin: Admin,
    state: State,
    response: Response,
    dry_run: DryRun = False,
    idempotency_key: IdempotencyKey = None,
) -> DeploymentOut | PreviewOut:
    """Make a serverless pool, or order a deployment for a tenant."""
    order = Order(body.tenant_id, body.name, body.path, body.spec, by_tenant=False)
    if dry_run:
        response.status_code = 200
        return PreviewOut.of(order.path, orders.preview(session, order, state.terms))
    placed = orders.place(session, order, state.terms, idempotency_key=idempotency_key)
    return _told(session, placed)


@router.get("/deployments")
def list_deployments(
    session: Db,
    admin: Admin,
    tenant_id: OfTenant = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[DeploymentOut]:
    """List deployments that are not deleted, oldest first; externally managed ones too."""
    found = rows.listing(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    why = standing.why_stopped(session, found)
    return page(
        found,
        limit,
        show=lambda row: DeploymentOut.of_all(row, why.get(row.id)),
        cursor=lambda row: row.id,
    )


@router.get("/deployments/{deployment_id}")
def get_deployment(deployment_id: uuid.UUID, session: Db, admin: Admin) -> DeploymentOut:
    """Show a deployment, deleted ones too."""
    return _told(session, _any(session, deployment_id))


@router.patch("/deployments/{deployment_id}")
def change_deployment(
    deployment_id: uuid.UUID, body: DeploymentChange, session: Db, admin: Admin
) -> DeploymentOut:
    """Change a deployment's spec by a merge patch."""
    row = _any(session, deployment_id, to_change=True)
    return _told(session, orders.change(session, row, body.spec, by_tenant=False))


@router.delete("/deployments/{deployment_id}", status_code=202)
def delete_deployment(deployment_id: uuid.UUID, session: Db, admin: Admin) -> DeploymentOut:
    """Delete a deployment: requests in flight finish, volumes go, its bill stays."""
    return _told(session, rows.delete(session, _any(session, deployment_id, to_change=True)))


@router.get("/deployments/{deployment_id}/events")
def list_events(deployment_id: uuid.UUID, session: Db, admin: Admin) -> EventsOut:
    """Tell what happened lately, newest first."""
    row = _any(session, deployment_id)
    return EventsOut(data=[EventOut.of(it) for it in history.happenings(row)])


@router.get("/deployments/{deployment_id}/usage")
def get_usage(
    deployment_id: uuid.UUID,
    session: Db,
    admin: Admin,
    after: AfterId = None,
    limit: Limit = 100,
) -> DeploymentUsage:
    """Show what a deployment cost: the sum, and each replica's time, newest first."""
    return usage(session, _any(session, deployment_id), after, limit)


def _any(session: Db, deployment_id: uuid.UUID, *, to_change: bool = False) -> Deployment:
    return rows.get(session, deployment_id=deployment_id, tenant_id=None, to_change=to_change)


def _told(session: Session, row: Deployment) -> DeploymentOut:
    return DeploymentOut.of_all(row, standing.why_stopped(session, [row]).get(row.id))
