"""Opens a tenant together with its account and project. Called by the REST API and first start."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.accounts.models import Account
from controlplane.db import uuid7
from controlplane.errors import Conflict
from controlplane.tenants.models import Project, Tenant
from controlplane.tenants.projects import DEFAULT_PROJECT


def create_tenant(session: Session, *, name: str) -> Tenant:
    """Make an active tenant with an empty account and a default project.

    Raises:
        Conflict: the name is taken.
    """
    tenant: Tenant | None = session.scalar(
        insert(Tenant)
        .values(id=uuid7(), name=name, status="active")
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(Tenant)
    )
    if tenant is None:
        raise Conflict(f"There is a tenant {name!r} already.", param="name")
    session.add(Account(kind="tenant", tenant_id=tenant.id))
    session.add(Project(tenant_id=tenant.id, name=DEFAULT_PROJECT))
    session.flush()
    return tenant
