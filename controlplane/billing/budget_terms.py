"""Setting budgets, changing and showing them. Called by the REST API.

A new budget counts what its scope holds at that moment and what it spent in the period that runs;
a `total` budget counts spending from its own beginning on. The account's lock keeps both figures
still meanwhile.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.orm import Session

from controlplane.accounts import budgets, funds
from controlplane.accounts.limits import Limit, Period, Scope, period_start
from controlplane.accounts.models import Account, Budget, Hold, LedgerEntry, LedgerTransaction
from controlplane.db import first_uuid7
from controlplane.errors import Conflict, NotFound, UnprocessableRequest
from controlplane.tenants.models import ApiKey, Project
from controlplane.usage.models import UsageEvent

THRESHOLDS = (80, 100)
SPENDING = ("charge", "gpu_time", "storage", "commitment")
# How long before a period a request may have begun that was settled in it.
_LONGEST_REQUEST = timedelta(days=3)


def create(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    period: Period,
    limit_p: int,
    project_id: uuid.UUID | None = None,
    api_key_id: uuid.UUID | None = None,
    thresholds: Sequence[int] = THRESHOLDS,
) -> Limit:
    """Set a budget of `limit_p` for a key, a project or, with neither, the tenant.

    A key's budget is one with those of the keys that it took over from, and of those that will take
    over from it; it names the first of them.

    A limit below what is spent or held already is allowed: it refuses everything until it renews.

    Raises:
        NotFound: no such tenant, or the project or key is not the tenant's.
        UnprocessableRequest: both a project and a key.
        Conflict: there is one of this scope and period already.
    """
    if project_id is not None and api_key_id is not None:
        raise UnprocessableRequest("Name a project or a key, not both.", param="project_id")
    if tenant_id not in funds.lock(session, tenant_ids=[tenant_id]).by_tenant:
        raise NotFound(f"There is no tenant {tenant_id}.")
    if api_key_id is not None:
        api_key_id = _line(session, tenant_id, api_key_id)
    keys = _keys(session, tenant_id, project_id=project_id, line_id=api_key_id)
    twin = select(Budget.id).where(
        Budget.tenant_id == tenant_id,
        Budget.project_id.is_not_distinct_from(project_id),
        Budget.api_key_id.is_not_distinct_from(api_key_id),
        Budget.period == period,
    )
    if session.scalar(twin) is not None:
        raise Conflict(f"There is a budget of this scope by {period} already: change that one.")
    now: datetime = session.execute(select(func.statement_timestamp())).scalar_one()
    start = now if period == "total" else period_start(period, now)
    scope: Scope = "key" if api_key_id else "project" if project_id else "tenant"
    budget_id = session.scalar(
        insert(Budget)
        .values(
            tenant_id=tenant_id,
            scope=scope,
            project_id=project_id,
            api_key_id=api_key_id,
            period=period,
            limit_p=limit_p,
            spent_p=_spent_p(session, tenant_id, scope, keys, start),
            held_p=_held_p(session, tenant_id, scope, keys),
            period_started_at=start,
            thresholds=sorted(set(thresholds)),
        )
        .returning(Budget.id)
    )
    assert budget_id is not None
    return get(session, tenant_id=tenant_id, budget_id=budget_id)


def get(session: Session, *, tenant_id: uuid.UUID, budget_id: uuid.UUID) -> Limit:
    """Return one of a tenant's budgets as it stands now.

    Raises:
        NotFound: unknown, or another tenant's.
    """
    for limit in budgets.of_tenant(session, tenant_id=tenant_id):
        if limit.id == budget_id:
            return limit
    raise NotFound(f"There is no budget {budget_id}.")


def change(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    budget_id: uuid.UUID,
    limit_p: int | None = None,
    thresholds: Sequence[int] | None = None,
) -> Limit:
    """Change a budget's limit, its thresholds, or both; None keeps one as it is.

    Raises:
        NotFound: unknown, or another tenant's.
    """
    funds.lock(session, tenant_ids=[tenant_id])
    values: dict[str, object] = {"changed_at": func.now()}
    if limit_p is not None:
        values["limit_p"] = limit_p
    if thresholds is not None:
        values["thresholds"] = sorted(set(thresholds))
    session.execute(
        update(Budget)
        .where(Budget.id == budget_id, Budget.tenant_id == tenant_id)
        .values(values)
        .execution_options(synchronize_session=False)
    )
    return get(session, tenant_id=tenant_id, budget_id=budget_id)


def remove(session: Session, *, tenant_id: uuid.UUID, budget_id: uuid.UUID) -> None:
    """Take a budget away.

    Raises:
        NotFound: unknown, or another tenant's.
    """
    funds.lock(session, tenant_ids=[tenant_id])
    gone = session.scalar(
        delete(Budget)
        .where(Budget.id == budget_id, Budget.tenant_id == tenant_id)
        .returning(Budget.id)
        .execution_options(synchronize_session=False)
    )
    if gone is None:
        raise NotFound(f"There is no budget {budget_id}.")


def _line(session: Session, tenant_id: uuid.UUID, api_key_id: uuid.UUID) -> uuid.UUID:
    """Return the first key of a key's line."""
    line_id = session.scalar(
        select(func.coalesce(ApiKey.first_id, ApiKey.id)).where(
            ApiKey.tenant_id == tenant_id, ApiKey.id == api_key_id
        )
    )
    if line_id is None:
        raise NotFound(f"There is no key {api_key_id}.")
    return line_id


def _keys(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    project_id: uuid.UUID | None,
    line_id: uuid.UUID | None,
) -> Select[uuid.UUID]:
    """Return the query of the scope's keys; make sure that a project is the tenant's."""
    keys = select(ApiKey.id).where(ApiKey.tenant_id == tenant_id)
    if line_id is not None:
        keys = keys.where(func.coalesce(ApiKey.first_id, ApiKey.id) == line_id)
    if project_id is not None:
        owned = select(Project.id).where(Project.tenant_id == tenant_id, Project.id == project_id)
        if session.scalar(owned) is None:
            raise NotFound(f"There is no project {project_id}.")
        keys = keys.where(ApiKey.project_id == project_id)
    return keys


def _held_p(session: Session, tenant_id: uuid.UUID, scope: Scope, keys: Select[uuid.UUID]) -> int:
    query = select(func.coalesce(func.sum(Hold.amount_p), 0)).where(
        Hold.tenant_id == tenant_id, Hold.state == "open"
    )
    if scope != "tenant":
        query = query.where(Hold.api_key_id.in_(keys))
    return int(session.execute(query).scalar_one())


def _spent_p(
    session: Session,
    tenant_id: uuid.UUID,
    scope: Scope,
    keys: Select[uuid.UUID],
    start: datetime,
) -> int:
    if scope == "tenant":
        query = (
            select(func.coalesce(-func.sum(LedgerEntry.amount_p), 0))
            .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
            .join(Account, Account.id == LedgerEntry.account_id)
            .where(
                Account.tenant_id == tenant_id,
                LedgerTransaction.tenant_id == tenant_id,
                LedgerTransaction.kind.in_(SPENDING),
                LedgerTransaction.created_at >= start,
            )
        )
    else:
        query = select(func.coalesce(func.sum(UsageEvent.charge_p), 0)).where(
            UsageEvent.tenant_id == tenant_id,
            UsageEvent.api_key_id.in_(keys),
            UsageEvent.settled_at >= start,
            # Ids are times: what is older than any request can be need not be read.
            UsageEvent.request_id >= first_uuid7(start - _LONGEST_REQUEST),
        )
    return int(session.execute(query).scalar_one())
