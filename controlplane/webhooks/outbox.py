"""Puts notices out for delivery, in the transaction of what they tell of.

Called by whatever a tenant wants to hear of: budgets, funds, invoices. Nothing is sent here:
`delivery` does, after the commit.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, or_, select
from sqlalchemy.dialects.postgresql import insert as insert_once
from sqlalchemy.orm import Session

from controlplane.db import uuid7
from controlplane.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookNotice

PATIENCE = timedelta(hours=72)


def notify(
    session: Session, *, tenant_id: uuid.UUID, kind: str, body: Mapping[str, object], once: str
) -> None:
    """Tell a tenant's endpoints that something happened.

    Args:
        kind: such as `budget.threshold`; endpoints choose by it.
        body: plain JSON; the `data` of what is sent.
        once: the same again, at any time, is the same notice and is not sent again.
    """
    notice_id = session.scalar(
        insert_once(WebhookNotice)
        .values(id=uuid7(), tenant_id=tenant_id, kind=kind, body=dict(body), once=once)
        .on_conflict_do_nothing(index_elements=["tenant_id", "once"])
        .returning(WebhookNotice.id)
    )
    if notice_id is None:
        return
    wanted = select(WebhookEndpoint.id).where(
        WebhookEndpoint.tenant_id == tenant_id,
        WebhookEndpoint.enabled,
        or_(WebhookEndpoint.kinds == [], WebhookEndpoint.kinds.contains([kind])),
    )
    for endpoint_id in session.scalars(wanted).all():
        deliver(session, tenant_id=tenant_id, endpoint_id=endpoint_id, notice_id=notice_id)


def deliver(
    session: Session, *, tenant_id: uuid.UUID, endpoint_id: uuid.UUID, notice_id: uuid.UUID
) -> uuid.UUID:
    """Put a notice out for one endpoint, and return the delivery's id."""
    now = datetime.now(UTC)
    delivery_id = uuid7()
    session.execute(
        insert(WebhookDelivery).values(
            id=delivery_id,
            tenant_id=tenant_id,
            endpoint_id=endpoint_id,
            notice_id=notice_id,
            next_attempt_at=now,
            give_up_at=now + PATIENCE,
        )
    )
    return delivery_id
