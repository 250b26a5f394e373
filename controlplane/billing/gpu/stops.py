"""Stops what its tenant cannot pay for any more. Called by `jobs` after every charging.

A transaction of its own, which holds no account while it waits for nobody: a row that is being
projected or changed is passed over, and stopped the next time.
"""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Numeric, Select, case, cast, func, or_, select
from sqlalchemy.orm import Session

from controlplane.accounts import budgets
from controlplane.accounts.models import Account, Budget
from controlplane.billing.gpu.ticks import PATIENCE_MS, TICK_MS
from controlplane.deployments import rows
from controlplane.deployments.models import GpuInterval
from controlplane.pricing.rating import MS_PER_HOUR

_UNBILLED_MS = GpuInterval.proven_ms - GpuInterval.billed_ms
_RECENT = timedelta(milliseconds=PATIENCE_MS)


def stop_broke(session: Session, now: datetime) -> int:
    """Stop the deployments of tenants whose balance is nearly used up; return how many.

    That is while it still covers a minute of all that runs: replicas finish requests, and cost, for
    a while yet. What is held for requests does not count: it may be spent. What is held for time
    ahead does, and that is minutes of it, in which requests end and it is filled up again.
    """
    broke = select(GpuInterval.deployment_id).where(
        *_recent(now),
        GpuInterval.deployment_id.is_not(None),
        GpuInterval.rate_p_per_hour > 0,
        GpuInterval.tenant_id.in_(_broke(now)),
    )
    return rows.stop_for_funds(session, set(session.scalars(broke)))


def stop_over_budget(session: Session, now: datetime) -> int:
    """Stop the deployments of tenants that have used up a budget of their account as a whole;
    return how many. Until the budget renews or is raised, none can be started either."""
    running = select(GpuInterval.tenant_id).where(*_recent(now), GpuInterval.rate_p_per_hour > 0)
    limited = select(Budget.tenant_id).where(
        Budget.scope == "tenant", Budget.tenant_id.in_(running)
    )
    over = [
        tenant_id
        for tenant_id in session.scalars(limited.distinct())
        if budgets.exhausted(session, tenant_id=tenant_id) is not None
    ]
    ids = select(GpuInterval.deployment_id).where(
        *_recent(now),
        GpuInterval.deployment_id.is_not(None),
        GpuInterval.rate_p_per_hour > 0,
        GpuInterval.tenant_id.in_(over),
    )
    return rows.stop_for_funds(session, set(session.scalars(ids))) if over else 0


def _broke(now: datetime) -> Select[uuid.UUID]:
    """Select the tenants who lack what is owed and a minute of what runs, of one replica at
    least."""
    rate_p = cast(GpuInterval.rate_p_per_hour, Numeric)
    ahead_ms = case((GpuInterval.ended_at.is_(None), TICK_MS), else_=0)
    needed_p = func.greatest(
        func.sum(rate_p * (_UNBILLED_MS + ahead_ms)) / MS_PER_HOUR,
        func.max(rate_p) * TICK_MS / MS_PER_HOUR,
    )
    free_p = Account.balance_p + Account.credit_limit_p - Account.held_p
    return (
        select(GpuInterval.tenant_id)
        .join(Account, Account.tenant_id == GpuInterval.tenant_id)
        .where(*_recent(now))
        .group_by(GpuInterval.tenant_id, Account.balance_p, Account.credit_limit_p, Account.held_p)
        .having(free_p + func.sum(GpuInterval.held_p) < func.floor(needed_p))
    )


def _recent(now: datetime) -> tuple[ColumnElement[bool], ...]:
    since = now - _RECENT
    return (
        or_(GpuInterval.ended_at.is_(None), GpuInterval.ended_at > since),
        GpuInterval.proven_until > since,
    )
