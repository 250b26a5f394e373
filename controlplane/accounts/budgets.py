"""Budgets: the most that a tenant, a project or a key may spend in a day, a month or at all.

Called by holds and settlement for tokens, and by whatever else spends a tenant's money. The rule of
`funds` holds for them too: whoever changes a tenant's budgets has locked its account before, so a
budget is as hard as a balance. What is settled counts in the period in which it is settled, by the
database's clock. What is given back later, by a refund or a credit, lowers no budget: it bounds
what is used, and money that came back is no leave to use more in the same period.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    DateTime,
    Uuid,
    and_,
    any_,
    bindparam,
    column,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from controlplane.accounts.limits import Limit
from controlplane.accounts.models import BalanceType, Budget
from controlplane.arrays import ArrayOf
from controlplane.money import p_to_usd
from controlplane.tenants.models import ApiKey
from controlplane.webhooks import outbox

_COLUMNS = (
    func.statement_timestamp(),
    Budget.id,
    Budget.tenant_id,
    Budget.scope,
    Budget.project_id,
    Budget.api_key_id,
    Budget.period,
    Budget.limit_p,
    Budget.spent_p,
    Budget.held_p,
    Budget.period_started_at,
    Budget.thresholds,
)
# Built once: it runs for every batch of holds.
_OF_KEYS = (
    select(ApiKey.id, *_COLUMNS)
    .join(
        Budget,
        and_(
            Budget.tenant_id == ApiKey.tenant_id,
            or_(
                Budget.scope == "tenant",
                # A key that took over shares the budgets of the first.
                Budget.api_key_id == func.coalesce(ApiKey.first_id, ApiKey.id),
                Budget.project_id == ApiKey.project_id,
            ),
        ),
    )
    .where(ApiKey.id == any_(bindparam("key_ids", type_=ArrayOf(Uuid))))
)
_TYPES: Final[Mapping[str, TypeEngine[Any]]] = {
    "id": Uuid(),
    "spent_p": BalanceType(),
    "held_p": BalanceType(),
    "period_started_at": DateTime(timezone=True),
}
_VALUES = (
    func.unnest(*(bindparam(f"{name}s", type_=ArrayOf(it)) for name, it in _TYPES.items()))
    .table_valued(*(column(name, it) for name, it in _TYPES.items()))
    .render_derived()
)
_WRITE = (
    update(Budget)
    .where(Budget.id == _VALUES.c.id)
    .values({name: _VALUES.c[name] for name in _TYPES if name != "id"})
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The budgets of some keys, changed in memory until `write`."""

    by_key: dict[uuid.UUID, list[Limit]] = field(default_factory=dict)
    by_id: dict[uuid.UUID, Limit] = field(default_factory=dict)

    def of(self, api_key_id: uuid.UUID) -> list[Limit]:
        """Return a key's budgets: its line's, its project's, its tenant's."""
        return self.by_key.get(api_key_id, [])

    def hold(self, api_key_id: uuid.UUID, amount_p: int) -> None:
        """Set an amount aside in a key's budgets; a negative one gives it back."""
        for limit in self.of(api_key_id):
            limit.held_p += amount_p

    def spend(self, api_key_id: uuid.UUID, amount_p: int) -> None:
        """Count an amount as spent in a key's budgets."""
        for limit in self.of(api_key_id):
            limit.spend(amount_p)


def of_keys(session: Session, api_key_ids: Collection[uuid.UUID]) -> Limits:
    """Return the budgets of keys in their current periods. The keys' accounts must be locked."""
    found = Limits()
    for key_id, *terms in session.execute(_OF_KEYS, {"key_ids": list(api_key_ids)}):
        limit = _limit(terms)
        limit = found.by_id.setdefault(limit.id, limit)
        found.by_key.setdefault(key_id, []).append(limit)
    return found


def of_tenant(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    after: uuid.UUID | None = None,
    limit: int | None = None,
) -> list[Limit]:
    """Return a tenant's budgets in their current periods, oldest first, those after an id."""
    query = select(*_COLUMNS).where(Budget.tenant_id == tenant_id).order_by(Budget.id).limit(limit)
    if after is not None:
        query = query.where(Budget.id > after)
    return [_limit(row) for row in session.execute(query)]


def spend(session: Session, *, tenant_id: uuid.UUID, amount_p: int) -> None:
    """Count what no key spent, such as GPU time, in the budgets of a tenant as a whole.

    The tenant's account must be locked. Nothing is refused: what is due is due, but holds see it.
    """
    query = select(*_COLUMNS).where(Budget.tenant_id == tenant_id, Budget.scope == "tenant")
    limits = [_limit(row) for row in session.execute(query)]
    for limit in limits:
        limit.spend(amount_p)
    write(session, limits)


def exhausted(session: Session, *, tenant_id: uuid.UUID) -> Limit | None:
    """Return a budget of the tenant as a whole that is used up in its present period."""
    for limit in of_tenant(session, tenant_id=tenant_id):
        if limit.scope == "tenant" and limit.spent_p >= limit.limit_p:
            return limit
    return None


def write(session: Session, limits: Iterable[Limit]) -> None:
    """Write budgets back, in one statement, and tell their tenants of thresholds just crossed."""
    rows = list(limits)
    if not rows:
        return
    session.execute(_WRITE, {f"{name}s": [getattr(row, name) for row in rows] for name in _TYPES})
    for limit in rows:
        for percent in limit.crossed():
            _tell(session, limit, percent)


def _limit(row: Sequence[Any]) -> Limit:
    now, *terms = row
    limit = Limit(*terms)
    limit.roll(now)
    return limit


def _tell(session: Session, limit: Limit, percent: int) -> None:
    began = limit.period_started_at.date().isoformat()
    outbox.notify(
        session,
        tenant_id=limit.tenant_id,
        kind="budget.threshold",
        body={
            "budget_id": str(limit.id),
            "scope": limit.scope,
            "project_id": str(limit.project_id) if limit.project_id else None,
            "api_key_id": str(limit.api_key_id) if limit.api_key_id else None,
            "period": limit.period,
            "period_started_at": limit.period_started_at.isoformat(),
            "threshold_percent": percent,
            "limit_usd": p_to_usd(limit.limit_p),
            "limit_p": str(limit.limit_p),
            "spent_usd": p_to_usd(limit.spent_p),
            "spent_p": str(limit.spent_p),
        },
        once=f"budget:{limit.id}:{began}:{percent}",
    )
