"""Tables of the price book: of tokens, with their rates and calendars, of GPU time and storage."""

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db import Base, uuid7


class PriceCalendar(Base):
    """Weekly windows and holidays that say which band of a price holds when; immutable.

    A corrected calendar, or next year's holidays, is another row of the same name; a price keeps
    the row it was published with. `windows` is a list of {band, days, from, to}, see `calendars`.
    """

    __tablename__ = "price_calendars"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]
    time_zone: Mapped[str]
    default_band: Mapped[str]
    windows: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    holidays: Mapped[list[date]] = mapped_column(ARRAY(Date))
    holidays_known_until: Mapped[date | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class PriceVersion(Base):
    """What one model costs on one path from a moment on, for all or for one tenant; immutable.

    Its rates are rows of `PriceRate`, inserted with it. A tenant's version without any ends what
    the tenant had of its own. `position` grows in the order of commits: the database lets one
    transaction publish at a time.
    """

    __tablename__ = "price_versions"
    __table_args__ = (
        UniqueConstraint(
            "tenant_id", "model", "path", "effective_from", postgresql_nulls_not_distinct=True
        ),
        CheckConstraint("path IN ('serverless', 'dedicated')", name="path"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    model: Mapped[str]
    path: Mapped[str] = mapped_column(default="serverless")
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("tenants.id"))
    calendar_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey(PriceCalendar.id))
    effective_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    calendar: Mapped[PriceCalendar | None] = relationship(lazy="selectin")
    rates: Mapped[list["PriceRate"]] = relationship(lazy="selectin", order_by="PriceRate.band")


class PriceRate(Base):
    """The rates of one band of a price version; immutable. A price without bands has `standard`.

    Rates are p$ per token, which is µ$ per million tokens; `request_rate_p` is p$ per request.
    """

    __tablename__ = "price_rates"
    __table_args__ = (
        CheckConstraint(
            "hit_rate_p >= 0 AND miss_rate_p >= 0 AND output_rate_p >= 0 AND request_rate_p >= 0",
            name="rates",
        ),
        CheckConstraint("hit_rate_p <= miss_rate_p", name="hit_not_above_miss"),
    )

    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(PriceVersion.id), primary_key=True)
    band: Mapped[str] = mapped_column(primary_key=True)
    hit_rate_p: Mapped[int] = mapped_column(BigInteger)
    miss_rate_p: Mapped[int] = mapped_column(BigInteger)
    output_rate_p: Mapped[int] = mapped_column(BigInteger)
    request_rate_p: Mapped[int] = mapped_column(BigInteger)


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
