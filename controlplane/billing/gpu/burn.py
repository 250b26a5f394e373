"""What a tenant's deployments and volumes use up an hour. Called by `watch` and the REST API."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias, cast

from sqlalchemy import Numeric, func, or_, select
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session

from controlplane.accounts.models import Account
from controlplane.billing.gpu.descent import Funds
from controlplane.billing.gpu.ticks import PATIENCE_MS
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.pricing.rating import MS_PER_HOUR

_RECENT = timedelta(milliseconds=PATIENCE_MS)


@dataclass(frozen=True, slots=True)
class Burn:
    """p$ per hour of live replicas and live volumes, and what of their time is not charged yet."""

    gpu_p_per_hour: int = 0
    storage_p_per_hour: int = 0
    owed_p: int = 0


_Sums: TypeAlias = dict[uuid.UUID, tuple[int, int]]


def burns(
    session: Session, now: datetime, *, tenant_ids: Collection[uuid.UUID] | None = None
) -> dict[uuid.UUID, Burn]:
    """Return the burn by tenant, of those who have any; None: of all."""
    gpu = _sums(session, GpuInterval, now, tenant_ids)
    storage = _sums(session, VolumeInterval, now, tenant_ids)
    nothing = (0, 0)
    return {
        tenant_id: Burn(
            gpu_p_per_hour=gpu.get(tenant_id, nothing)[0],
            storage_p_per_hour=storage.get(tenant_id, nothing)[0],
            owed_p=gpu.get(tenant_id, nothing)[1] + storage.get(tenant_id, nothing)[1],
        )
        for tenant_id in gpu.keys() | storage.keys()
    }


def funds_of(session: Session, burns: dict[uuid.UUID, Burn]) -> dict[uuid.UUID, Funds]:
    """Return what tenants have, next to what uses it up."""
    found = session.execute(
        select(Account.tenant_id, Account.balance_p + Account.credit_limit_p).where(
            Account.tenant_id.in_(burns)
        )
    )
    funds = {}
    for tenant_id, funds_p in found:
        assert tenant_id is not None
        burn = burns[tenant_id]
        funds[tenant_id] = Funds(
            funds_p=int(funds_p),
            owed_p=burn.owed_p,
            burn_p_per_hour=burn.gpu_p_per_hour + burn.storage_p_per_hour,
            has_volumes=burn.storage_p_per_hour > 0,
        )
    return funds


def _sums(
    session: Session,
    interval: type[GpuInterval] | type[VolumeInterval],
    now: datetime,
    tenant_ids: Collection[uuid.UUID] | None,
) -> _Sums:
    # Both tables have the same columns; the first stands for either.
    table = cast(type[GpuInterval], interval)
    rate_p = as_type(table.rate_p_per_hour, Numeric)
    is_live = table.ended_at.is_(None)
    unbilled_ms = table.proven_ms - table.billed_ms
    query = (
        select(
            table.tenant_id,
            func.coalesce(func.sum(rate_p).filter(is_live), 0),
            func.floor(func.sum(rate_p * unbilled_ms) / MS_PER_HOUR),
        )
        .where(or_(is_live, table.ended_at > now - _RECENT), table.proven_until > now - _RECENT)
        .group_by(table.tenant_id)
    )
    if tenant_ids is not None:
        query = query.where(table.tenant_id.in_(tenant_ids))
    return {row[0]: (int(row[1]), int(row[2])) for row in session.execute(query)}
