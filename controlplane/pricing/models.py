"""Tables of price versions: of tokens, of GPU time, and of storage."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, uuid7


class PriceVersion(Base):
    """Token prices of one model on one path from a moment on; immutable.

    Rates are p$ per token, which is µ$ per million tokens.
    """

    __tablename__ = "price_versions"
    __table_args__ = (
        UniqueConstraint("model", "path", "effective_from"),
        CheckConstraint("path IN ('serverless', 'dedicated')", name="path"),
        CheckConstraint(
            "hit_rate_p >= 0 AND miss_rate_p >= 0 AND output_rate_p >= 0", name="rates"
        ),
        CheckConstraint("hit_rate_p <= miss_rate_p", name="hit_not_above_miss"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    model: Mapped[str]
    path: Mapped[str] = mapped_column(default="serverless")
    hit_rate_p: Mapped[int] = mapped_column(BigInteger)
    miss_rate_p: Mapped[int] = mapped_column(BigInteger)
    output_rate_p: Mapped[int] = mapped_column(BigInteger)
    effective_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class GpuPriceVersion(Base):
    """What a replica on one GPU configuration costs an hour from a moment on; immutable.

    The rate is p$ per hour of the whole configuration, not of one of its GPUs.
    """

    __tablename__ = "gpu_price_versions"
    __table_args__ = (
        UniqueConstraint("configuration", "kind", "effective_from"),
        CheckConstraint("kind IN ('on_demand', 'spot')", name="kind"),
        CheckConstraint("rate_p_per_hour >= 0", name="rate"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    configuration: Mapped[str]
    kind: Mapped[str]
    rate_p_per_hour: Mapped[int] = mapped_column(BigInteger)
    effective_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class StoragePriceVersion(Base):
    """What a GiB of volume costs an hour from a moment on; immutable.

    `storage_class` is one that is ordered by name, or `*` for every other.
    """

    __tablename__ = "storage_price_versions"
    __table_args__ = (
        UniqueConstraint("storage_class", "effective_from"),
        CheckConstraint("rate_p_per_gib_hour >= 0", name="rate"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    storage_class: Mapped[str]
    rate_p_per_gib_hour: Mapped[int] = mapped_column(BigInteger)
    effective_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
