"""Tables of webhook endpoints, of what they are told, and of each attempt to tell it."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, uuid7


class WebhookEndpoint(Base):
    """A tenant's server. `kinds` it wants to hear of, empty: all. Its secret is kept sealed."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (UniqueConstraint("tenant_id", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    # By name: tenants stand on a higher floor.
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str]
    kinds: Mapped[list[str]] = mapped_column(ARRAY(String))
    sealed_secret: Mapped[bytes]
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class WebhookNotice(Base):
    """What happened. Kept for ever: `once` is what makes it happen once."""

    __tablename__ = "webhook_notices"
    __table_args__ = (UniqueConstraint("tenant_id", "id"), UniqueConstraint("tenant_id", "once"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    once: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class WebhookDelivery(Base):
    """One notice on its way to one endpoint; `claim` is the token of whoever is telling it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
        CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended"),
        ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            [WebhookEndpoint.tenant_id, WebhookEndpoint.id],
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "notice_id"], [WebhookNotice.tenant_id, WebhookNotice.id]
        ),
        Index(
            "ix_webhook_deliveries_due",
            "next_attempt_at",
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID]
    endpoint_id: Mapped[uuid.UUID] = mapped_column(index=True)
    notice_id: Mapped[uuid.UUID]
    state: Mapped[str] = mapped_column(default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    give_up_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    claim: Mapped[uuid.UUID | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
