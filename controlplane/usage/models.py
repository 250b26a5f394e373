"""Tables of usage: staged by gateways, then final."""

import uuid
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKeyConstraint,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base
from controlplane.pricing.models import PriceRate
from controlplane.pricing.rating import STANDARD
from controlplane.tenants.models import ApiKey


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
    """A settled request; `charge_p` is what its ledger transaction moved."""

    __tablename__ = "usage_events"
    __table_args__ = (
        CheckConstraint(
            "hit_tokens >= 0 AND miss_tokens >= 0 AND output_tokens >= 0"
            " AND reasoning_tokens BETWEEN 0 AND output_tokens",
            name="tokens",
        ),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], [ApiKey.tenant_id, ApiKey.id]),
        _pinned_price(),
        Index("ix_usage_events_tenant_id_request_id", "tenant_id", "request_id"),
    )

    charge_p: Mapped[int] = mapped_column(BigInteger)
    settled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
