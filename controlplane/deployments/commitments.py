"""Tables of commitments: what a tenant has promised, and what fell due for not using it."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.accounts.models import BalanceType
from controlplane.db import Base, uuid7
from controlplane.tenants.models import Tenant


class Commitment(Base):
    """A promise from `starts_at` until before `ends_at`; immutable but for what is counted.

    `spend`: `p_per_month` of usage in every calendar month. `reserved`: `replicas` on one GPU
    configuration at `rate_p_per_hour` each, used or not. Up to `due_until` it has been reckoned;
    `used_p` is what replicas were charged at the reserved rate, `due_p` what fell due besides.
    """

    __tablename__ = "commitments"
    __table_args__ = (
        CheckConstraint(
            "(kind = 'spend' AND p_per_month > 0 AND configuration IS NULL"
            " AND replicas IS NULL AND rate_p_per_hour IS NULL) OR (kind = 'reserved'"
            " AND p_per_month IS NULL AND configuration IS NOT NULL AND replicas > 0"
            " AND rate_p_per_hour > 0 AND ends_at IS NOT NULL)",
            name="kind",
        ),
        CheckConstraint("starts_at < ends_at", name="forward"),
        CheckConstraint("due_until >= starts_at AND due_until <= ends_at", name="reckoned"),
        CheckConstraint("used_p >= 0 AND due_p >= 0", name="sums"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), index=True)
    kind: Mapped[str]
    p_per_month: Mapped[int | None] = mapped_column(BigInteger)
    configuration: Mapped[str | None]
    replicas: Mapped[int | None]
    rate_p_per_hour: Mapped[int | None] = mapped_column(BigInteger)
    starts_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    due_until: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used_p: Mapped[int] = mapped_column(BalanceType, default=0)
    due_p: Mapped[int] = mapped_column(BalanceType, default=0)
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class CommitmentDue(Base):
    """What was not used of a commitment in a period, and how much of that has been collected.

    Its key makes a period fall due once, for ever.
    """

    __tablename__ = "commitment_dues"
    __table_args__ = (
        CheckConstraint("due_p > 0 AND due_p <= promised_p", name="due"),
        CheckConstraint("paid_p BETWEEN 0 AND due_p", name="paid"),
        Index("ix_commitment_dues_unpaid", "tenant_id", postgresql_where=text("paid_p < due_p")),
    )

    commitment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Commitment.id), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    period_end: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id))
    promised_p: Mapped[int] = mapped_column(BalanceType)
    used_p: Mapped[int] = mapped_column(BalanceType)
    due_p: Mapped[int] = mapped_column(BalanceType)
    paid_p: Mapped[int] = mapped_column(BalanceType, default=0)
