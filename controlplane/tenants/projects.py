"""Projects: the parts of a tenant. Called by the REST API and `keys`."""

import uuid
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.tenants.models import Project

DEFAULT_PROJECT: Final = "default"


def get(session: Session, *, tenant_id: uuid.UUID, project_id: uuid.UUID | None = None) -> Project:
    """Return a project of a tenant, its default one unless told.

    Raises:
        NotFound: no such project, or another tenant's.
    """
    query = select(Project).where(Project.tenant_id == tenant_id)
    if project_id is None:
        return session.scalars(query.where(Project.name == DEFAULT_PROJECT)).one()
    project = session.scalar(query.where(Project.id == project_id))
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    return project
