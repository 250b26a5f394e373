"""Routes of webhooks: a tenant's own, and an admin's for any tenant."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, State, Tenant, page
from controlplane.api.notices.webhook_schemas import (
    DeliveryOut,
    IssuedWebhook,
    NewWebhook,
    WebhookChange,
    WebhookOut,
)
from controlplane.api.schemas import Page
from controlplane.tenants import tenants
from controlplane.webhooks import endpoints
from controlplane.webhooks.models import WebhookEndpoint

tenant_router = APIRouter(prefix="/v1/account/webhooks", tags=["webhooks"], route_class=Contract)
admin_router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}/webhooks", tags=["webhooks"], route_class=Contract
)

OfEndpoint = Annotated[uuid.UUID | None, Query(description="only this endpoint's")]


@tenant_router.post("", status_code=201)
def create_webhook(body: NewWebhook, session: Db, tenant: Tenant, state: State) -> IssuedWebhook:
    """Have a server of yours called. The answer holds its secret, which is never shown again."""
    endpoint, secret = endpoints.create(
        session,
        state.pepper,
        tenant_id=tenant.tenant_id,
        url=body.url,
        kinds=body.kinds,
        allow_loopback=state.webhooks_to_loopback,
    )
    return IssuedWebhook(**WebhookOut.model_validate(endpoint).model_dump(), secret=secret)


@tenant_router.get("")
def list_webhooks(session: Db, tenant: Tenant) -> Page[WebhookOut]:
    """List the account's webhook endpoints."""
    return _listed(endpoints.listing(session, tenant_id=tenant.tenant_id))


@tenant_router.get("/deliveries")
def list_deliveries(
    session: Db,
    tenant: Tenant,
    endpoint_id: OfEndpoint = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[DeliveryOut]:
    """List what was sent, or is on its way, newest first."""
    return _deliveries(session, tenant.tenant_id, endpoint_id, after, limit)


@tenant_router.post("/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver_webhook(delivery_id: uuid.UUID, session: Db, tenant: Tenant) -> DeliveryOut:
    """Send once more what arrived or was given up, with the same `webhook-id`."""
    pair = endpoints.redeliver(session, tenant_id=tenant.tenant_id, delivery_id=delivery_id)
    return DeliveryOut.of_pair(pair)


@tenant_router.get("/{endpoint_id}")
def get_webhook(endpoint_id: uuid.UUID, session: Db, tenant: Tenant) -> WebhookOut:
    """Show a webhook endpoint."""
    found = endpoints.get(session, tenant_id=tenant.tenant_id, endpoint_id=endpoint_id)
    return WebhookOut.model_validate(found)


@tenant_router.patch("/{endpoint_id}")
def change_webhook(
    endpoint_id: uuid.UUID, body: WebhookChange, session: Db, tenant: Tenant, state: State
) -> WebhookOut:
    """Change where an endpoint is, what it is told of, or turn it off and on."""
    return _changed(session, tenant.tenant_id, endpoint_id, body, state)


@tenant_router.delete("/{endpoint_id}", status_code=204)
def delete_webhook(endpoint_id: uuid.UUID, session: Db, tenant: Tenant) -> None:
    """Remove an endpoint with its deliveries, those on their way too."""
    endpoints.delete(session, tenant_id=tenant.tenant_id, endpoint_id=endpoint_id)


@tenant_router.post("/{endpoint_id}/ping", status_code=202)
def ping_webhook(endpoint_id: uuid.UUID, session: Db, tenant: Tenant) -> DeliveryOut:
    """Send a message of kind `ping`, to see whether it arrives and verifies."""
    pair = endpoints.ping(session, tenant_id=tenant.tenant_id, endpoint_id=endpoint_id)
    return DeliveryOut.of_pair(pair)


@admin_router.get("")
def list_tenants_webhooks(tenant_id: uuid.UUID, session: Db, admin: Admin) -> Page[WebhookOut]:
    """List a tenant's webhook endpoints."""
    tenants.get(session, tenant_id=tenant_id)
    return _listed(endpoints.listing(session, tenant_id=tenant_id))


@admin_router.post("", status_code=201)
def create_tenants_webhook(
    tenant_id: uuid.UUID, body: NewWebhook, session: Db, admin: Admin, state: State
) -> IssuedWebhook:
    """Have a tenant's server called. The answer holds its secret, which is never shown again."""
    tenants.get(session, tenant_id=tenant_id)
    endpoint, secret = endpoints.create(
        session,
        state.pepper,
        tenant_id=tenant_id,
        url=body.url,
        kinds=body.kinds,
        allow_loopback=state.webhooks_to_loopback,
    )
    return IssuedWebhook(**WebhookOut.model_validate(endpoint).model_dump(), secret=secret)


@admin_router.get("/deliveries")
def list_tenants_deliveries(
    tenant_id: uuid.UUID,
    session: Db,
    admin: Admin,
    endpoint_id: OfEndpoint = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[DeliveryOut]:
    """List what was sent to a tenant's endpoints, newest first."""
    tenants.get(session, tenant_id=tenant_id)
    return _deliveries(session, tenant_id, endpoint_id, after, limit)


@admin_router.get("/{endpoint_id}")
def get_tenants_webhook(
    tenant_id: uuid.UUID, endpoint_id: uuid.UUID, session: Db, admin: Admin
) -> WebhookOut:
    """Show a tenant's webhook endpoint."""
    found = endpoints.get(session, tenant_id=tenant_id, endpoint_id=endpoint_id)
    return WebhookOut.model_validate(found)


@admin_router.patch("/{endpoint_id}")
def change_tenants_webhook(
    tenant_id: uuid.UUID,
    endpoint_id: uuid.UUID,
    body: WebhookChange,
    session: Db,
    admin: Admin,
    state: State,
) -> WebhookOut:
    """Change a tenant's endpoint, such as turning one off that only fails."""
    return _changed(session, tenant_id, endpoint_id, body, state)


@admin_router.delete("/{endpoint_id}", status_code=204)
def delete_tenants_webhook(
    tenant_id: uuid.UUID, endpoint_id: uuid.UUID, session: Db, admin: Admin
) -> None:
    """Remove a tenant's endpoint with its deliveries."""
    endpoints.delete(session, tenant_id=tenant_id, endpoint_id=endpoint_id)


def _listed(found: list[WebhookEndpoint]) -> Page[WebhookOut]:
    return Page(data=[WebhookOut.model_validate(endpoint) for endpoint in found], next=None)


def _changed(
    session: Db, tenant_id: uuid.UUID, endpoint_id: uuid.UUID, body: WebhookChange, state: State
) -> WebhookOut:
    changed = endpoints.change(
        session,
        tenant_id=tenant_id,
        endpoint_id=endpoint_id,
        allow_loopback=state.webhooks_to_loopback,
        url=body.url,
        kinds=body.kinds,
        enabled=body.enabled,
    )
    return WebhookOut.model_validate(changed)


def _deliveries(
    session: Db,
    tenant_id: uuid.UUID,
    endpoint_id: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> Page[DeliveryOut]:
    found = endpoints.deliveries(
        session, tenant_id=tenant_id, endpoint_id=endpoint_id, after=after, limit=limit + 1
    )
    return page(found, limit, show=DeliveryOut.of_pair, cursor=lambda pair: pair[0].id)
