"""Tables of deployments, of the GPU time their replicas had, and of the cluster's catalogue."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.accounts.models import BalanceType
from controlplane.db import Base, uuid7
from controlplane.deployments.commitments import Commitment
from controlplane.tenants.models import Tenant


class Deployment(Base):
    """A serverless pool, a dedicated deployment or a bare endpoint, and what the cluster tells.

    `managed` says who decides: `row` ones are projected onto the cluster, `external` ones were
    written there by hand and are only shown. A deleted one stays, as the owner of its GPU time.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        CheckConstraint("path IN ('serverless', 'dedicated', 'bare')", name="path"),
        CheckConstraint("state IN ('active', 'deleting', 'deleted')", name="state"),
        CheckConstraint("managed IN ('row', 'external')", name="managed"),
        CheckConstraint(
            "managed = 'external' OR (path = 'serverless') = (tenant_id IS NULL)", name="owner"
        ),
        # Both kinds of object share a namespace's names: replicas are called after their owner.
        Index(
            "uq_deployments_name",
            "namespace",
            "name",
            unique=True,
            postgresql_where=text("state <> 'deleted'"),
        ),
        # Of proofs of life, which know no id; deleted ones count.
        Index("ix_deployments_namespace_name", "namespace", "name"),
        # Unique for ever: a retried order with the same key is the same order.
        Index(
            "uq_deployments_idempotency_key",
            "tenant_id",
            "idempotency_key",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey(Tenant.id), index=True)
    namespace: Mapped[str]
    name: Mapped[str]
    path: Mapped[str]
    managed: Mapped[str] = mapped_column(default="row")
    state: Mapped[str] = mapped_column(default="active")
    # The custom resource's spec, in its wire form.
    spec: Mapped[dict[str, Any]] = mapped_column(JSONB)
    generation: Mapped[int] = mapped_column(BigInteger, default=1)
    # Kept stopped, whatever the spec says, until its owner starts it with money.
    out_of_funds: Mapped[bool] = mapped_column(default=False)
    # The custom resource's status as last seen, the row's generation it speaks of, and why the
    # cluster refuses the spec.
    status: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    observed_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    refusal: Mapped[str | None]
    refused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    idempotency_key: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class _Metered:
    """A proven life and what of it has been paid.

    `proven_ms` is the sum of its unbroken parts. `billed_ms` of it have been dealt with. The rate
    holds from `rated_from_ms` of them on, when `rated_p` had been dealt with:
    billed_p + waived_p = rated_p + floor(rate x (billed_ms - rated_from_ms) / 3.6M), always.
    `held_p` is set aside for its next minutes, as part of the account's held sum: while it lives,
    as much of them as the account covers.
    """

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # the object's uid in the cluster
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id))
    deployment_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("deployments.id"), index=True
    )
    deployment: Mapped[str]  # <namespace>/<name>
    rate_p_per_hour: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    proven_until: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    proven_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    billed_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    billed_p: Mapped[int] = mapped_column(BalanceType, default=0)
    waived_p: Mapped[int] = mapped_column(BalanceType, default=0)
    rated_from_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    rated_p: Mapped[int] = mapped_column(BalanceType, default=0)
    held_p: Mapped[int] = mapped_column(BalanceType, default=0)


def _metered(table: str) -> tuple[CheckConstraint | Index, ...]:
    return (
        CheckConstraint("billed_ms BETWEEN 0 AND proven_ms", name="billed_is_proven"),
        CheckConstraint("billed_p >= 0 AND waived_p >= 0", name="sums"),
        CheckConstraint("held_p >= 0", name="held_not_negative"),
        CheckConstraint("rated_from_ms BETWEEN 0 AND billed_ms", name="rate_is_of_its_life"),
        CheckConstraint(
            "billed_p + waived_p = rated_p"
            " + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)",
            name="exact_sum",
        ),
        Index(f"ix_{table}_unbilled", "id", postgresql_where=text("billed_ms < proven_ms")),
        Index(f"ix_{table}_held", "tenant_id", postgresql_where=text("held_p > 0")),
        Index(f"ix_{table}_ended_at", "ended_at"),
        Index(f"ix_{table}_tenant_id_started_at", "tenant_id", "started_at"),
    )


class GpuInterval(_Metered, Base):
    """A replica's proven life.

    `list_p_per_hour` was pinned when it began, and is its rate while it has no place in a
    reservation. `credited_p` is None until its end has been judged by the policy of interrupted
    spot time, then what was given back.
    """

    __tablename__ = "gpu_intervals"
    __table_args__ = (
        CheckConstraint("path IN ('dedicated', 'bare')", name="path"),
        CheckConstraint("credited_p BETWEEN 0 AND billed_p", name="credit_was_billed"),
        Index(
            "ix_gpu_intervals_unjudged",
            "id",
            postgresql_where=text("interrupted AND credited_p IS NULL"),
        ),
        *_metered("gpu_intervals"),
    )

    replica: Mapped[str]
    path: Mapped[str]
    configuration: Mapped[str]
    gpus: Mapped[int]
    spot: Mapped[bool]
    list_p_per_hour: Mapped[int] = mapped_column(BigInteger)
    commitment_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey(Commitment.id), index=True)
    interrupted: Mapped[bool] = mapped_column(default=False)
    credited_p: Mapped[int | None] = mapped_column(BalanceType)


class VolumeInterval(_Metered, Base):
    """A volume's proven existence, with or without a replica that uses it."""

    __tablename__ = "volume_intervals"
    __table_args__ = (
        CheckConstraint("size_gib > 0", name="size"),
        *_metered("volume_intervals"),
    )

    claim: Mapped[str]
    storage_class: Mapped[str]  # as ordered; empty: the cluster's default
    size_gib: Mapped[int]


class FundState(Base):
    """How far a tenant's funds have sunk and what was told of it; see `billing.gpu.descent`.

    `told` counts the tenant's notices: each has a number of its own.
    """

    __tablename__ = "fund_states"
    __table_args__ = (
        CheckConstraint("level IN ('enough', 'day', 'hour', 'empty')", name="level"),
        CheckConstraint("(level = 'empty') = (empty_since IS NOT NULL)", name="emptiness"),
    )

    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), primary_key=True)
    level: Mapped[str]
    seen_p: Mapped[int] = mapped_column(BalanceType)
    refilled: Mapped[bool]
    empty_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    expiry_told_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    told: Mapped[int] = mapped_column(default=0)


class OfferedConfiguration(Base):
    """A GPU configuration of the cluster's catalogue, and how many replicas it has room for now."""

    __tablename__ = "gpu_configurations"

    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    position: Mapped[int]
    free_replicas: Mapped[int | None]  # None: unknown
