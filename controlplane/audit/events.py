"""Reads audit events. Called by the REST API."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.audit.models import AuditEvent


def listing(
    session: Session,
    *,
    tenant_id: uuid.UUID | None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    after: int | None = None,
    limit: int,
) -> list[AuditEvent]:
    """Return at most `limit` events, newest first, those older than the id `after`.

    With a `tenant_id`, that tenant's; without, everybody's and the platform's.
    """
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(AuditEvent.chain == tenant_id)
    named = ((AuditEvent.actor, actor), (AuditEvent.action, action), (AuditEvent.subject, subject))
    for column, wanted in named:
        if wanted is not None:
            query = query.where(column == wanted)
    if after is not None:
        query = query.where(AuditEvent.id < after)
    return list(session.scalars(query))
