"""Projects: the parts of a tenant. Called by the REST API and `keys`."""

import uuid
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, NotFound
from controlplane.tenants.models import Project, Tenant

DEFAULT_PROJECT: Final = "default"


def get(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    project_id: uuid.UUID | None = None,
    to_change: bool = False,
) -> Project:
    """Return a project of a tenant, its default one unless told.

    Raises:
        NotFound: no such project, or another tenant's.
    """
    query = select(Project).where(Project.tenant_id == tenant_id)
    if to_change:
        query = query.with_for_update()
    if project_id is None:
        return session.scalars(query.where(Project.name == DEFAULT_PROJECT)).one()
    project = session.scalar(query.where(Project.id == project_id))
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    return project


def listing(
    session: Session, *, tenant_id: uuid.UUID, after: uuid.UUID | None, limit: int
) -> list[Project]:
    """Return a tenant's projects by id, archived ones too, those after the id `after`."""
    query = select(Project).where(Project.tenant_id == tenant_id).order_by(Project.id).limit(limit)
    if after is not None:
        query = query.where(Project.id > after)
    return list(session.scalars(query))


def create(session: Session, *, tenant_id: uuid.UUID, name: str) -> Project:
    """Make a project of a tenant.

    Raises:
        NotFound: no such tenant.
        Conflict: the tenant has a project of this name.
    """
    # Locked, so that of two projects of one name made at once the second is told of the first.
    if session.get(Tenant, tenant_id, with_for_update=True) is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    _check_free(session, tenant_id, name)
    project = Project(tenant_id=tenant_id, name=name)
    session.add(project)
    session.flush()
    session.refresh(project)
    return project


def change(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    project_id: uuid.UUID,
    name: str | None = None,
    archived: bool | None = None,
) -> Project:
    """Rename, archive or restore a project; an archived one's keys open nothing.

    Raises:
        NotFound: no such project, or another tenant's.
        Conflict: the tenant has another project of this name, or the project is the default one,
            which always is there under its name.
    """
    session.get(Tenant, tenant_id, with_for_update=True)
    project = get(session, tenant_id=tenant_id, project_id=project_id, to_change=True)
    if project.name == DEFAULT_PROJECT and (archived or name not in (None, DEFAULT_PROJECT)):
        raise Conflict("The default project keeps its name and is never archived.")
    if name is not None and name != project.name:
        _check_free(session, tenant_id, name)
        project.name = name
    if archived is not None and archived != (project.archived_at is not None):
        project.archived_at = datetime.now(UTC) if archived else None
    session.flush()
    return project


def _check_free(session: Session, tenant_id: uuid.UUID, name: str) -> None:
    taken = select(Project.id).where(Project.tenant_id == tenant_id, Project.name == name)
    if session.scalar(taken) is not None:
        raise Conflict(f"There is a project {name!r} already.", param="name")
