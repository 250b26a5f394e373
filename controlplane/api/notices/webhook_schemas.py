"""What the REST API takes and gives of webhooks."""

import uuid
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from controlplane.api.schemas import Body, Row
from controlplane.webhooks.addresses import MAX_URL_CHARS
from controlplane.webhooks.models import WebhookDelivery, WebhookNotice

Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URL_CHARS,
        description="https:// and a public host; called by POST, redirects are not followed",
        examples=["https://hooks.example.com/flashplane"],
    ),
]
Kind = Annotated[
    str, StringConstraints(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$")
]
Kinds = Annotated[
    list[Kind],
    Field(
        max_length=50,
        description="what to be told of; empty: everything",
        examples=[["budget.threshold", "funds.low"]],
    ),
]


class NewWebhook(Body):
    url: Url
    kinds: Kinds = Field(default_factory=list)


class WebhookChange(Body):
    """What is left out stays as it is."""

    url: Url | None = None
    kinds: Kinds | None = None
    enabled: bool | None = Field(default=None, description="off: nothing is sent, nothing kept")


class WebhookOut(Row):
    id: uuid.UUID
    tenant_id: uuid.UUID
    url: str
    kinds: list[str]
    enabled: bool
    created_at: datetime


class IssuedWebhook(WebhookOut):
    """A new endpoint. `secret` proves what we send: shown here and never again.

    Messages are signed as Standard Webhooks v1: verify `webhook-signature` with this secret, and
    take a `webhook-id` that you know already for a repetition.
    """

    secret: str = Field(description="whsec_ and base64")


class DeliveryOut(Row):
    """One notice on its way to one endpoint. Failed attempts are repeated for 72 hours."""

    id: uuid.UUID
    endpoint_id: uuid.UUID
    message_id: uuid.UUID = Field(description="the `webhook-id` of every attempt")
    kind: str
    state: str = Field(description="pending, delivered or dead")
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None = Field(description="HTTP status of the last attempt")
    last_error: str | None
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, delivery: WebhookDelivery, kind: str) -> Self:
        return cls(
            id=delivery.id,
            endpoint_id=delivery.endpoint_id,
            message_id=delivery.notice_id,
            kind=kind,
            state=delivery.state,
            attempts=delivery.attempts,
            next_attempt_at=delivery.next_attempt_at if delivery.state == "pending" else None,
            last_status=delivery.last_status,
            last_error=delivery.last_error,
            created_at=delivery.created_at,
            ended_at=delivery.ended_at,
        )

    @classmethod
    def of_pair(cls, pair: tuple[WebhookDelivery, WebhookNotice]) -> Self:
        return cls.of(pair[0], pair[1].kind)
