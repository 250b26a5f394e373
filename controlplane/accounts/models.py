"""Tables of accounts, gateway epochs, holds and the ledger."""

import uuid
from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    TypeDecorator,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, uuid7
from controlplane.pricing.models import PriceRate
from controlplane.pricing.rating import STANDARD
from controlplane.tenants.models import ApiKey, Project, Tenant

# What a ledger transaction is. Money comes in by top_up, grant and payment; goes by charge (of
# tokens), gpu_time, storage and commitment; comes back by refund, credit_note and waiver.
KINDS = (
    "top_up",
    "grant",
    "payment",
    "charge",
    "gpu_time",
    "storage",
    "commitment",
    "refund",
    "credit_note",
    "waiver",
    "adjustment",
)


class BalanceType(TypeDecorator[int]):
    """An exact integer too wide for BIGINT: NUMERIC(38, 0) in the database, `int` in Python."""

    impl = Numeric(38, 0)
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class Account(Base):
    """A sum of entries. `tenant` accounts are the customers' money, the other kinds are ours.

    `balance_p` is the sum of the account's entries and `granted_p` the part of it that was given,
    not paid: only entries move them, the database refuses anything else. `held_p` is the sum of the
    open holds and of what is set aside for the next minutes of what runs. What may be spent,
    `balance_p + credit_limit_p - held_p`, is never below zero at any commit; only `postpaid`
    accounts have a credit limit.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('tenant', 'revenue', 'funding', 'promotion', 'adjustments', 'tax')",
            name="kind",
        ),
        CheckConstraint("(kind = 'tenant') = (tenant_id IS NOT NULL)", name="owner"),
        CheckConstraint("held_p >= 0", name="held_not_negative"),
        CheckConstraint(
            "kind <> 'tenant' OR balance_p + credit_limit_p - held_p >= 0", name="not_overspent"
        ),
        CheckConstraint("granted_p >= 0", name="granted_not_negative"),
        CheckConstraint("terms IN ('prepaid', 'postpaid')", name="terms"),
        CheckConstraint(
            "credit_limit_p >= 0 AND (terms = 'postpaid' OR credit_limit_p = 0)",
            name="credit_is_postpaid",
        ),
        Index(
            "uq_accounts_platform", "kind", unique=True, postgresql_where=text("tenant_id IS NULL")
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    kind: Mapped[str]
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey(Tenant.id), unique=True)
    balance_p: Mapped[int] = mapped_column(BalanceType, default=0)
    granted_p: Mapped[int] = mapped_column(BalanceType, default=0)
    held_p: Mapped[int] = mapped_column(BalanceType, default=0)
    terms: Mapped[str] = mapped_column(default="prepaid")
    credit_limit_p: Mapped[int] = mapped_column(BalanceType, default=0)


class GatewayEpoch(Base):
    """One life of one gateway process. Its holds stay until its journal has been replayed.

    A gateway is known by `gateway` (its name, owner of one journal folder); each start is a new
    epoch. `closed_at` is set, with the replayed usage staged in the same transaction, by the
    gateway's next life or by its own clean end.
    """

    __tablename__ = "gateway_epochs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    gateway: Mapped[str] = mapped_column(index=True)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Budget(Base):
    """The most that a tenant, one of its projects or one of its keys may spend in a period.

    A key's budget names the first of its line: those that took over by rotation share it.
    `held_p` is the sum of the open holds in its scope, `spent_p` what was spent in the period that
    began at `period_started_at`. They change only while the tenant's account is locked. A period
    that has passed is noticed by whoever locks next; `total` is one period, for ever.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("scope IN ('tenant', 'project', 'key')", name="scope"),
        CheckConstraint("period IN ('day', 'month', 'total')", name="period"),
        CheckConstraint(
            "(scope = 'project') = (project_id IS NOT NULL)"
            " AND (scope = 'key') = (api_key_id IS NOT NULL)",
            name="scope_named",
        ),
        CheckConstraint("limit_p >= 0 AND spent_p >= 0 AND held_p >= 0", name="not_negative"),
        CheckConstraint("0 < ALL (thresholds) AND 100 >= ALL (thresholds)", name="thresholds"),
        ForeignKeyConstraint(["tenant_id", "project_id"], [Project.tenant_id, Project.id]),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], [ApiKey.tenant_id, ApiKey.id]),
        UniqueConstraint(
            *("tenant_id", "project_id", "api_key_id", "period"),
            name="uq_budgets_scope_period",
            postgresql_nulls_not_distinct=True,
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id))
    scope: Mapped[str]
    project_id: Mapped[uuid.UUID | None]
    api_key_id: Mapped[uuid.UUID | None]
    period: Mapped[str]
    limit_p: Mapped[int] = mapped_column(BalanceType)
    spent_p: Mapped[int] = mapped_column(BalanceType)
    held_p: Mapped[int] = mapped_column(BalanceType)
    period_started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # Percent of the limit; each is told once a period.
    thresholds: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Hold(Base):
    """Money set aside before a request is dispatched; what a request costs never exceeds it.

    Open ones and, for usage that comes late, released ones. Settlement deletes it: from then on the
    usage row and the ledger transaction are the record of the request.
    """

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'released')", name="state"),
        CheckConstraint("amount_p >= 0", name="amount_not_negative"),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], [ApiKey.tenant_id, ApiKey.id]),
        ForeignKeyConstraint(["price_version_id", "band"], [PriceRate.version_id, PriceRate.band]),
        Index("ix_holds_open", "epoch_id", postgresql_where=text("state = 'open'")),
    )

    request_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID]
    api_key_id: Mapped[uuid.UUID]
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    epoch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("gateway_epochs.id"))
    price_version_id: Mapped[uuid.UUID]
    band: Mapped[str] = mapped_column(default=STANDARD)
    amount_p: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    state: Mapped[str] = mapped_column(default="open")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class LedgerTransaction(Base):
    """Entries that sum to zero. Append-only: the database refuses UPDATE and DELETE."""

    __tablename__ = "ledger_transactions"
    __table_args__ = (
        CheckConstraint(f"kind IN {KINDS}", name="kind"),
        CheckConstraint("(kind = 'charge') = (request_id IS NOT NULL)", name="request"),
        CheckConstraint(
            "(kind IN ('gpu_time', 'storage')) = (interval_id IS NOT NULL)"
            " AND (interval_id IS NULL) = (from_ms IS NULL) AND (from_ms IS NULL) = (to_ms IS NULL)"
            " AND (from_ms IS NULL) = (rate_p_per_hour IS NULL)",
            name="gpu_time_explained",
        ),
        CheckConstraint("from_ms >= 0 AND from_ms < to_ms", name="gpu_time_forward"),
        CheckConstraint("reason <> '' AND author <> ''", name="told"),
        CheckConstraint(
            "CASE kind WHEN 'refund' THEN corrects_id IS NOT NULL WHEN 'waiver' THEN corrects_id IS"
            " NOT NULL WHEN 'credit_note' THEN true ELSE corrects_id IS NULL END",
            name="corrects",
        ),
        Index(
            "ix_ledger_transactions_corrects_id",
            "corrects_id",
            postgresql_where=text("corrects_id IS NOT NULL"),
        ),
        # A tick is charged once, for ever: its end is the record of it.
        UniqueConstraint("interval_id", "to_ms"),
        # What else cost money: charges of tokens, by far the most, are summed up elsewhere.
        Index(
            "ix_ledger_transactions_costs",
            "tenant_id",
            "created_at",
            postgresql_where=text("kind <> 'charge'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    kind: Mapped[str]
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), index=True)
    # Unique for ever: the ledger row is the record that a request has been charged.
    request_id: Mapped[uuid.UUID | None] = mapped_column(unique=True)
    # Unique for ever: a retried top-up with the same key is the same top-up.
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    # GPU time and storage: the interval, and the part of its proven life that this pays for.
    interval_id: Mapped[uuid.UUID | None]
    from_ms: Mapped[int | None] = mapped_column(BigInteger)
    to_ms: Mapped[int | None] = mapped_column(BigInteger)
    rate_p_per_hour: Mapped[int | None] = mapped_column(BigInteger)
    # What a refund, credit note or waiver takes back; the database keeps it to what that took.
    corrects_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("ledger_transactions.id"))
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class LedgerEntry(Base):
    """One movement on one account, in p$; positive credits the account.

    `granted_p` is the part of it that moves given money. The entries that one statement adds to a
    transaction sum to zero, or the database refuses them.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        CheckConstraint("amount_p <> 0", name="amount_not_zero"),
        CheckConstraint(
            "granted_p BETWEEN least(amount_p, 0) AND greatest(amount_p, 0)", name="granted_is_part"
        ),
        CheckConstraint(
            "token_class IS NULL OR token_class IN ('hit', 'miss', 'output', 'request')",
            name="token_class",
        ),
        CheckConstraint(
            "token_class IS NULL OR abs(amount_p) = tokens * rate_p", name="exact_product"
        ),
        CheckConstraint(
            "(token_class IS NULL) = (tokens IS NULL) AND (tokens IS NULL) = (rate_p IS NULL)",
            name="class_explained",
        ),
        Index("ix_ledger_entries_account_id_id", "account_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    transaction_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("ledger_transactions.id"), index=True
    )
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    amount_p: Mapped[int] = mapped_column(BigInteger)
    granted_p: Mapped[int] = mapped_column(BigInteger, default=0)
    token_class: Mapped[str | None]
    tokens: Mapped[int | None] = mapped_column(BigInteger)
    rate_p: Mapped[int | None] = mapped_column(BigInteger)
