"""Tables of usage: staged by gateways, then final, then summed up, then expired."""

import uuid
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base
from controlplane.pricing.models import PriceRate
from controlplane.pricing.rating import STANDARD
from controlplane.tenants.models import ApiKey, Tenant


def _pinned_price() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["price_version_id", "band"], [PriceRate.version_id, PriceRate.band]
    )


class _UsageColumns:
    """What is known of one request when it has ended, however it ended."""

    request_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID]
    api_key_id: Mapped[uuid.UUID]
    model: Mapped[str]
    path: Mapped[str]
    replica: Mapped[str | None]
    thinking: Mapped[bool]
    streamed: Mapped[bool]
    hit_tokens: Mapped[int] = mapped_column(BigInteger)
    miss_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    # stop, length, tool_calls, ... as sent; `aborted` client gone, `error` failed, `lost` the
    # gateway died
    finish_reason: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    first_token_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    price_version_id: Mapped[uuid.UUID]
    band: Mapped[str] = mapped_column(default=STANDARD)


class StagedUsage(_UsageColumns, Base):
    """A request's end as its gateway's journal tells it, waiting to be settled.

    Rows are the queue. A row that cannot be settled keeps the reason in `rejected` and waits for
    a person; its hold stays.
    """

    __tablename__ = "usage_staging"
    __table_args__ = (
        _pinned_price(),
        Index("ix_usage_staging_queue", "staged_at", postgresql_where=text("rejected IS NULL")),
    )

    staged_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    rejected: Mapped[str | None]


class UsageEvent(_UsageColumns, Base):
    """A settled request; `charge_p` is what its ledger transaction moved.

    Kept in partitions by the month of the id's time, in the schema `partitions`: see `partitions`.
    What is added here the database adds to `usage_deltas` too.
    """

    __tablename__ = "usage_events"
    __table_args__ = (
        CheckConstraint(
            "hit_tokens >= 0 AND miss_tokens >= 0 AND output_tokens >= 0"
            " AND reasoning_tokens BETWEEN 0 AND output_tokens",
            name="tokens",
        ),
        # Nothing costs more than was set aside for it.
        CheckConstraint("charge_p <= held_p", name="within_hold"),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], [ApiKey.tenant_id, ApiKey.id]),
        _pinned_price(),
        Index("ix_usage_events_tenant_id_request_id", "tenant_id", "request_id"),
        {"postgresql_partition_by": "RANGE (request_id)"},
    )

    charge_p: Mapped[int] = mapped_column(BigInteger)
    # What its hold had set aside, 0 without one; not known of requests from before it was kept.
    held_p: Mapped[int | None] = mapped_column(BigInteger)
    settled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class _Group:
    """Whose and what kind of usage a sum is of."""

    tenant_id: Mapped[uuid.UUID]
    project_id: Mapped[uuid.UUID]
    api_key_id: Mapped[uuid.UUID]
    model: Mapped[str]
    path: Mapped[str]
    band: Mapped[str]
    thinking: Mapped[bool]


class _Sums:
    """Sums over requests."""

    requests: Mapped[int] = mapped_column(BigInteger)
    hit_tokens: Mapped[int] = mapped_column(BigInteger)
    miss_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    charge_p: Mapped[int] = mapped_column(BigInteger)


class UsageDelta(_Group, _Sums, Base):
    """What one statement added to `usage_events`, by minute of start; not in the roll-ups yet.

    Written by the database itself in that statement, so at any moment roll-ups and deltas together
    are what the events sum up to.
    """

    __tablename__ = "usage_deltas"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    minute: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class UsageRollup(_Group, _Sums, Base):
    """Sums over the requests of one key that started in one minute, again in one hour and one day.

    What is added to an hour the database adds to its day.
    """

    __tablename__ = "usage_rollups"
    __table_args__ = (
        CheckConstraint("width_seconds IN (60, 3600, 86400)", name="width"),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], [ApiKey.tenant_id, ApiKey.id]),
    )

    tenant_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    width_seconds: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    api_key_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    band: Mapped[str] = mapped_column(primary_key=True)
    thinking: Mapped[bool] = mapped_column(primary_key=True)


class ExpiredUsage(_Sums, Base):
    """What a tenant's events of one partition came to, when the partition had expired.

    Its ids were at least `from_id` and below `until_id`. Their ledger rows stay.
    """

    __tablename__ = "usage_expired"

    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), primary_key=True)
    until_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    from_id: Mapped[uuid.UUID]
    expired_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
