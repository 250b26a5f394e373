"""What a tenant's usage cost by day: tokens from the roll-ups, all else from the ledger.

Called by the REST API. Tokens count on the day their request started; GPU time, storage,
commitments and what was given back, on the day they were booked. Money that comes in is no cost.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select, type_coerce
from sqlalchemy.orm import Session

from controlplane.accounts.models import Account, BalanceType, LedgerEntry, LedgerTransaction
from controlplane.deployments.models import GpuInterval
from controlplane.pricing.gpu import kind_of
from controlplane.pricing.rating import STANDARD
from controlplane.usage import rollups
from controlplane.usage.rollups import EVERYTHING, Filters

DAY: Final = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Charges of tokens are in the roll-ups; the others bring money in, or set it right.
_NO_COSTS = ("charge", "top_up", "grant", "payment", "adjustment")


@dataclass(frozen=True, slots=True)
class CostGroup:
    """What a cost is grouped by; None where that was not asked, or it is nobody's in particular."""

    project_id: uuid.UUID | None
    api_key_id: uuid.UUID | None
    line_item: str | None


@dataclass(frozen=True, slots=True)
class _Cost:
    day: datetime
    group: CostGroup
    amount_p: int


def costs(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    since: datetime,
    until: datetime,
    group_by: Sequence[str] = (),
    filters: Filters = EVERYTHING,
) -> dict[datetime, dict[CostGroup, int]]:
    """Return p$ by day, UTC, and group from the day `since` until before the day `until`.

    With a filter, only what has a project, a key or a model: tokens.
    """
    asked = {"tenant_id": tenant_id, "since": since, "until": until}
    found = list(_of_tokens(session, filters=filters, **asked))  # type: ignore[arg-type]
    if not filters:
        found += _of_all_else(session, **asked)  # type: ignore[arg-type]
    by_day: dict[datetime, Counter[CostGroup]] = {}
    for cost in found:
        group = CostGroup(
            project_id=cost.group.project_id if "project_id" in group_by else None,
            api_key_id=cost.group.api_key_id if "api_key_id" in group_by else None,
            line_item=cost.group.line_item if "line_item" in group_by else None,
        )
        by_day.setdefault(cost.day, Counter())[group] += cost.amount_p
    return {day: dict(amounts) for day, amounts in by_day.items()}


def _of_tokens(
    session: Session, *, tenant_id: uuid.UUID, since: datetime, until: datetime, filters: Filters
) -> Iterator[_Cost]:
    found = rollups.sums(
        session,
        tenant_id=tenant_id,
        since=since,
        until=until,
        width=DAY,
        group_by=["project_id", "api_key_id", "model", "path", "band"],
        filters=filters,
    )
    for row in found:
        band = () if row.band == STANDARD else (row.band,)
        item = ", ".join([row.model, row.path, *band])
        yield _Cost(row.bucket, CostGroup(row.project_id, row.api_key_id, item), row.charge_p)


def _of_all_else(
    session: Session, *, tenant_id: uuid.UUID, since: datetime, until: datetime
) -> Iterator[_Cost]:
    day = func.date_bin(DAY, LedgerTransaction.created_at, _EPOCH).label("day")
    by = (day, LedgerTransaction.kind, GpuInterval.configuration, GpuInterval.spot)
    found = session.execute(
        select(*by, type_coerce(-func.sum(LedgerEntry.amount_p), BalanceType).label("amount_p"))
        .join(LedgerEntry, LedgerEntry.transaction_id == LedgerTransaction.id)
        .join(Account, Account.id == LedgerEntry.account_id)
        .outerjoin(GpuInterval, GpuInterval.id == LedgerTransaction.interval_id)
        .where(
            LedgerTransaction.tenant_id == tenant_id,
            Account.tenant_id == tenant_id,
            # As the index says it, which has no charges of tokens.
            LedgerTransaction.kind != "charge",
            LedgerTransaction.kind.not_in(_NO_COSTS),
            LedgerTransaction.created_at >= since,
            LedgerTransaction.created_at < until,
        )
        .group_by(*by)
        .order_by(*by)
    )
    for row in found:
        item = row.kind.replace("_", " ")
        if row.configuration is not None:
            item = f"{row.configuration}, {kind_of(spot=row.spot).replace('_', ' ')}"
        yield _Cost(row.day, CostGroup(None, None, item), row.amount_p)
