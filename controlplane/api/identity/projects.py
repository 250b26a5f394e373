"""Routes of projects: a tenant's own, and every tenant's for the platform."""

import uuid

from fastapi import APIRouter

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, Tenant, page
from controlplane.api.identity.schemas import NewProject, ProjectChange, ProjectOut
from controlplane.api.schemas import Page
from controlplane.tenants import projects, tenants

admin_router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}/projects", tags=["projects"], route_class=Contract
)
router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=Contract)


@admin_router.get("")
def list_tenant_projects(
    tenant_id: uuid.UUID, session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[ProjectOut]:
    """List a tenant's projects, archived ones too."""
    tenants.get(session, tenant_id=tenant_id)
    return _list(session, tenant_id, after, limit)


@admin_router.post("", status_code=201)
def create_tenant_project(
    tenant_id: uuid.UUID, body: NewProject, session: Db, admin: Admin
) -> ProjectOut:
    """Make a project of a tenant."""
    made = projects.create(session, tenant_id=tenant_id, name=body.name)
    return ProjectOut.model_validate(made)


@admin_router.get("/{project_id}")
def get_tenant_project(
    tenant_id: uuid.UUID, project_id: uuid.UUID, session: Db, admin: Admin
) -> ProjectOut:
    """Show a tenant's project."""
    found = projects.get(session, tenant_id=tenant_id, project_id=project_id)
    return ProjectOut.model_validate(found)


@admin_router.patch("/{project_id}")
def change_tenant_project(
    tenant_id: uuid.UUID, project_id: uuid.UUID, body: ProjectChange, session: Db, admin: Admin
) -> ProjectOut:
    """Rename, archive or restore a tenant's project."""
    return _change(session, tenant_id, project_id, body)


@router.get("")
def list_projects(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 100
) -> Page[ProjectOut]:
    """List the account's projects, archived ones too."""
    return _list(session, tenant.tenant_id, after, limit)


@router.post("", status_code=201)
def create_project(body: NewProject, session: Db, tenant: Tenant) -> ProjectOut:
    """Make a project: a part of the account with keys of its own."""
    made = projects.create(session, tenant_id=tenant.tenant_id, name=body.name)
    return ProjectOut.model_validate(made)


@router.get("/{project_id}")
def get_project(project_id: uuid.UUID, session: Db, tenant: Tenant) -> ProjectOut:
    """Show a project."""
    found = projects.get(session, tenant_id=tenant.tenant_id, project_id=project_id)
    return ProjectOut.model_validate(found)


@router.patch("/{project_id}")
def change_project(
    project_id: uuid.UUID, body: ProjectChange, session: Db, tenant: Tenant
) -> ProjectOut:
    """Rename, archive or restore a project. Within a second an archived one's keys open nothing."""
    return _change(session, tenant.tenant_id, project_id, body)


def _list(
    session: Db, tenant_id: uuid.UUID, after: uuid.UUID | None, limit: int
) -> Page[ProjectOut]:
    found = projects.listing(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=ProjectOut.model_validate, cursor=lambda project: project.id)


def _change(
    session: Db, tenant_id: uuid.UUID, project_id: uuid.UUID, body: ProjectChange
) -> ProjectOut:
    changed = projects.change(
        session,
        tenant_id=tenant_id,
        project_id=project_id,
        name=body.name,
        archived=body.archived,
    )
    return ProjectOut.model_validate(changed)
