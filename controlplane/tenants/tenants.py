"""Tenants: finding, listing, suspending. Called by the REST API.

A tenant is made together with its account, by `accounts.opening`.
"""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, NotFound
from controlplane.tenants.models import Tenant


def get(session: Session, *, tenant_id: uuid.UUID) -> Tenant:
    """Return a tenant.

    Raises:
        NotFound: no such tenant.
    """
    tenant = session.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    return tenant


def living(session: Session, *, tenant_id: uuid.UUID) -> Tenant:
    """Return a tenant that is not deleted.

    Raises:
        NotFound: no such tenant.
        Conflict: it is deleted.
    """
    tenant = get(session, tenant_id=tenant_id)
    if tenant.status == "deleted":
        raise Conflict(f"The tenant {tenant_id} is deleted, for ever.")
    return tenant


def listing(session: Session, *, after: uuid.UUID | None, limit: int) -> list[Tenant]:
    """Return at most `limit` tenants in the order they were made, those after the id `after`."""
    query = select(Tenant).order_by(Tenant.id).limit(limit)
    if after is not None:
        query = query.where(Tenant.id > after)
    return list(session.scalars(query))


def set_status(session: Session, *, tenant_id: uuid.UUID, status: str) -> Tenant:
    """Make a tenant `active` or `suspended`; a suspended one's keys open nothing.

    Raises:
        NotFound: no such tenant.
        Conflict: it is deleted.
    """
    tenant = living(session, tenant_id=tenant_id)
    tenant.status = status
    session.flush()
    return tenant
