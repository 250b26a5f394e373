"""The table of audit events."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base

# The chain of what belongs to no tenant.
PLATFORM = uuid.UUID(int=0)


class AuditEvent(Base):
    """One thing that somebody did. Never changed and never deleted: the database refuses.

    `chain` is the tenant, or `PLATFORM`; `seq` counts from 1 in each chain without a gap, and
    `hash` covers everything but `id`, which only orders events of all chains for reading.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        CheckConstraint("seq > 0", name="seq"),
        CheckConstraint(f"chain = COALESCE(tenant_id, '{PLATFORM}'::uuid)", name="chain"),
        UniqueConstraint("chain", "seq"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    chain: Mapped[uuid.UUID]
    seq: Mapped[int] = mapped_column(BigInteger)
    # By name: tenants stand on a higher floor.
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("tenants.id"))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]
