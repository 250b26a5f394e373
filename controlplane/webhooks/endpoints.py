"""A tenant's webhook endpoints and what was delivered to them. Called by the REST API."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.db import uuid7
from controlplane.errors import Conflict, NotFound
from controlplane.sealing import seal
from controlplane.webhooks import outbox
from controlplane.webhooks.addresses import check_url
from controlplane.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookNotice
from controlplane.webhooks.signing import new_secret

MOST_ENDPOINTS = 20
PURPOSE = "webhook"


Sent = tuple[WebhookDelivery, WebhookNotice]


def create(
    session: Session,
    pepper: bytes,
    *,
    tenant_id: uuid.UUID,
    url: str,
    kinds: Sequence[str],
    allow_loopback: bool,
) -> tuple[WebhookEndpoint, str]:
    """Make an endpoint; its secret is returned here and never again.

    Raises:
        UnprocessableRequest: the URL is not one that may be called.
        Conflict: the tenant has as many as it may.
    """
    url = check_url(url, allow_loopback=allow_loopback)
    query = select(func.count()).where(WebhookEndpoint.tenant_id == tenant_id)
    if (session.scalar(query) or 0) >= MOST_ENDPOINTS:
        raise Conflict(f"An account has at most {MOST_ENDPOINTS} webhook endpoints.")
    secret, shown = new_secret()
    endpoint = WebhookEndpoint(
        tenant_id=tenant_id,
        url=url,
        kinds=sorted(set(kinds)),
        sealed_secret=seal(pepper, PURPOSE, secret),
    )
    session.add(endpoint)
    session.flush()
    return endpoint, shown


def get(session: Session, *, tenant_id: uuid.UUID, endpoint_id: uuid.UUID) -> WebhookEndpoint:
    """Return an endpoint of a tenant.

    Raises:
        NotFound: there is none, or it is another tenant's.
    """
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None or endpoint.tenant_id != tenant_id:
        raise NotFound(f"There is no webhook endpoint {endpoint_id}.")
    return endpoint


def listing(session: Session, *, tenant_id: uuid.UUID) -> list[WebhookEndpoint]:
    """Return a tenant's endpoints, oldest first."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.tenant_id == tenant_id)
    return list(session.scalars(query.order_by(WebhookEndpoint.id)))


def change(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    endpoint_id: uuid.UUID,
    allow_loopback: bool,
    url: str | None = None,
    kinds: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> WebhookEndpoint:
    """Change of an endpoint what is not None.

    Raises:
        NotFound, UnprocessableRequest: as `get` and `create`.
    """
    endpoint = get(session, tenant_id=tenant_id, endpoint_id=endpoint_id)
    if url is not None:
        endpoint.url = check_url(url, allow_loopback=allow_loopback)
    if kinds is not None:
        endpoint.kinds = sorted(set(kinds))
    if enabled is not None:
        endpoint.enabled = enabled
    session.flush()
    return endpoint


def delete(session: Session, *, tenant_id: uuid.UUID, endpoint_id: uuid.UUID) -> None:
    """Remove an endpoint with its deliveries, those on their way too.

    Raises:
        NotFound: as `get`.
    """
    session.delete(get(session, tenant_id=tenant_id, endpoint_id=endpoint_id))
    session.flush()


def ping(session: Session, *, tenant_id: uuid.UUID, endpoint_id: uuid.UUID) -> Sent:
    """Put a notice of kind `ping` out for this endpoint alone, whatever kinds it wants.

    Raises:
        NotFound: as `get`.
    """
    get(session, tenant_id=tenant_id, endpoint_id=endpoint_id)
    notice_id = uuid7()
    notice = WebhookNotice(
        id=notice_id, tenant_id=tenant_id, kind="ping", body={}, once=f"ping:{notice_id}"
    )
    session.add(notice)
    session.flush()
    return _put_out(session, tenant_id, endpoint_id, notice.id)


def redeliver(session: Session, *, tenant_id: uuid.UUID, delivery_id: uuid.UUID) -> Sent:
    """Put what was delivered, or given up, out once more, as a delivery of its own.

    Raises:
        NotFound: there is no such delivery, or it is another tenant's.
        Conflict: it is still on its way.
    """
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or delivery.tenant_id != tenant_id:
        raise NotFound(f"There is no webhook delivery {delivery_id}.")
    if delivery.state == "pending":
        raise Conflict("This delivery is still on its way.")
    return _put_out(session, tenant_id, delivery.endpoint_id, delivery.notice_id)


def deliveries(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    endpoint_id: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    limit: int,
) -> list[Sent]:
    """Return at most `limit` deliveries with their notices, newest first."""
    query = (
        select(WebhookDelivery, WebhookNotice)
        .join(WebhookNotice, WebhookNotice.id == WebhookDelivery.notice_id)
        .where(WebhookDelivery.tenant_id == tenant_id)
        .order_by(WebhookDelivery.id.desc())
        .limit(limit)
    )
    if endpoint_id is not None:
        query = query.where(WebhookDelivery.endpoint_id == endpoint_id)
    if after is not None:
        query = query.where(WebhookDelivery.id < after)
    return [(delivery, notice) for delivery, notice in session.execute(query)]


def _put_out(
    session: Session, tenant_id: uuid.UUID, endpoint_id: uuid.UUID, notice_id: uuid.UUID
) -> Sent:
    made = outbox.deliver(
        session, tenant_id=tenant_id, endpoint_id=endpoint_id, notice_id=notice_id
    )
    return session.get_one(WebhookDelivery, made), session.get_one(WebhookNotice, notice_id)
