"""Watches tenants' funds: warns as they sink, and ends volumes that nobody pays for any more.

Called by `jobs` after every charging. A tenant's state and its notices commit together, and each
notice has a key of its own, so a tenant is told once whatever crashes.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import cast

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.billing.gpu import burn
from controlplane.billing.gpu.descent import NOTICE, Funds, Level, State, Step, look
from controlplane.deployments import rows
from controlplane.deployments.models import FundState
from controlplane.money import p_to_usd
from controlplane.webhooks import outbox

_NOTICES = {"day": "funds.low", "hour": "funds.low", "empty": "funds.empty"}


def watch(session: Session, now: datetime, *, keep: timedelta) -> int:
    """Look at everybody's funds; return how many notices there were.

    Args:
        session: the transaction.
        now: the moment.
        keep: for how long volumes outlive the money.
    """
    sunk = set(session.scalars(select(FundState.tenant_id).where(FundState.level != "enough")))
    burns = {tenant_id: burn.Burn() for tenant_id in sunk} | burn.burns(session, now)
    seen = burn.funds_of(session, burns)
    concerned = {it for it, funds in seen.items() if it in sunk or funds.level != "enough"}
    notices = 0
    for row in _locked(session, {it: seen[it] for it in concerned}):
        step = look(_state(row), seen[row.tenant_id], now, keep=keep)
        notices += _take(session, row, step, seen[row.tenant_id], now, keep)
    session.flush()
    return notices


def _locked(session: Session, seen: Mapping[uuid.UUID, Funds]) -> list[FundState]:
    """Return the rows of tenants, made where there was none; those at work elsewhere are left."""
    if not seen:
        return []
    session.execute(
        insert(FundState)
        .values(
            [
                {
                    "tenant_id": tenant_id,
                    "level": "enough",
                    "seen_p": funds.funds_p,
                    "refilled": False,
                    "told": 0,
                }
                for tenant_id, funds in sorted(seen.items())
            ]
        )
        .on_conflict_do_nothing()
    )
    return list(
        session.scalars(
            select(FundState)
            .where(FundState.tenant_id.in_(seen))
            .order_by(FundState.tenant_id)
            .with_for_update(skip_locked=True)
            .execution_options(populate_existing=True)
        )
    )


def _state(row: FundState) -> State:
    level = cast(Level, row.level)  # the table holds no others
    return State(level, row.seen_p, row.refilled, row.empty_since, row.expiry_told_at)


def _take(
    session: Session, row: FundState, step: Step, funds: Funds, now: datetime, keep: timedelta
) -> int:
    """Write a step down and tell of it; return how many notices there were."""
    state, before = step.state, row.told
    row.level, row.seen_p, row.refilled = state.level, state.seen_p, state.refilled
    row.empty_since, row.expiry_told_at = state.empty_since, state.expiry_told_at
    if step.warn is not None:
        _notify(session, row, _NOTICES[step.warn], _body(funds))
    if step.announce_expiry and state.empty_since is not None:
        expires_at = max(state.empty_since + keep, now + NOTICE)
        _notify(session, row, "volumes.expiring", {"expires_at": expires_at.isoformat()})
    if step.expire and rows.delete_volumes(session, tenant_id=row.tenant_id):
        _notify(session, row, "volumes.deleted", {})
    return row.told - before


def _body(funds: Funds) -> dict[str, object]:
    left_p = max(0, funds.funds_p - funds.owed_p)
    hours = Decimal(left_p) / funds.burn_p_per_hour
    return {
        "available_usd": p_to_usd(left_p),
        "available_p": str(left_p),
        "usd_per_hour": p_to_usd(funds.burn_p_per_hour),
        "p_per_hour": str(funds.burn_p_per_hour),
        "hours_left": f"{hours:.2f}",
    }


def _notify(session: Session, row: FundState, kind: str, body: Mapping[str, object]) -> None:
    row.told += 1
    outbox.notify(session, tenant_id=row.tenant_id, kind=kind, body=body, once=f"funds:{row.told}")
