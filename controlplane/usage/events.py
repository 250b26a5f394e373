"""Reads settled requests. Called by the REST API and `billing.receipts`."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import Gone, NotFound
from controlplane.usage import partitions
from controlplane.usage.models import UsageEvent


def listing(
    session: Session, *, tenant_id: uuid.UUID | None, after: uuid.UUID | None, limit: int
) -> list[UsageEvent]:
    """Return at most `limit` requests, newest first, those older than the id `after`.

    With a `tenant_id`, that tenant's; without, everybody's.
    """
    query = select(UsageEvent).order_by(UsageEvent.request_id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(UsageEvent.tenant_id == tenant_id)
    if after is not None:
        query = query.where(UsageEvent.request_id < after)
    return list(session.scalars(query))


def get(session: Session, *, tenant_id: uuid.UUID, request_id: uuid.UUID) -> UsageEvent:
    """Return one settled request of a tenant.

    Raises:
        NotFound: not settled yet, unknown, or another tenant's.
        Gone: the usage of its time has expired.
    """
    event = session.get(UsageEvent, request_id)
    if event is None or event.tenant_id != tenant_id:
        if partitions.has_expired(session, tenant_id=tenant_id, request_id=request_id):
            raise Gone(
                f"The usage of request {request_id} is no longer kept; its charge, if any, is in"
                " the ledger."
            )
        raise NotFound(f"There is no settled request {request_id}.")
    return event
