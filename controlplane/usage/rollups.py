"""Sums of usage by minute and by hour. Kept by `jobs`, read by the REST API and `billing.costs`.

Every statement that adds events adds their sums to `usage_deltas`, inside the database; `roll_up`
moves deltas into `usage_rollups`. Who reads takes both in one statement, one snapshot: what it gets
is exactly what the events sum up to, however far the job has come.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Subquery,
    cast,
    delete,
    func,
    select,
    text,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from controlplane.accounts.models import BalanceType
from controlplane.usage.models import UsageDelta, UsageRollup

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
GROUPS: Final = ("tenant_id", "project_id", "api_key_id", "model", "path", "band", "thinking")
SUMS: Final = (
    "requests",
    "hit_tokens",
    "miss_tokens",
    "output_tokens",
    "reasoning_tokens",
    "charge_p",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Tens of thousands of sums, a day's minutes by key, take more than the 4 MB that are usual.
_ROOM = text("SET LOCAL work_mem = '64MB'")
# One at a time: two would only wait for each other's rows.
_TRY_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('usage roll-ups', 0))")
_ADDED = ", ".join(f"{name} = usage_rollups.{name} + excluded.{name}" for name in SUMS)
# By a bound, not by a list of ids: the table is empty at one moment and full at the next, and with
# the statistics of the first a join of the list takes minutes.
_ROLL_UP = text(f"""
    WITH taken AS (
        DELETE FROM usage_deltas
        WHERE id <= (
            SELECT max(id) FROM (SELECT id FROM usage_deltas ORDER BY id LIMIT :limit) AS oldest
        ) RETURNING *
    ), added AS (
        INSERT INTO usage_rollups (width_seconds, start, {", ".join(GROUPS)}, {", ".join(SUMS)})
        SELECT width, date_bin(width * interval '1 second', minute, 'epoch'::timestamptz),
               {", ".join(GROUPS)}, {", ".join(f"sum({name})" for name in SUMS)}
        FROM taken CROSS JOIN (VALUES (60), (3600)) AS widths(width)
        GROUP BY 1, 2, {", ".join(GROUPS)}
        ON CONFLICT (tenant_id, width_seconds, start, api_key_id, model, path, band, thinking)
        DO UPDATE SET {_ADDED}
    )
    SELECT count(*) FROM taken
""")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which usage is wanted; an empty collection is all."""

    project_ids: Collection[uuid.UUID] = field(default=())
    api_key_ids: Collection[uuid.UUID] = field(default=())
    models: Collection[str] = field(default=())

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.project_ids or self.api_key_ids or self.models)


EVERYTHING: Final = Filters()


def roll_up(session: Session, limit: int = 10_000) -> int:
    """Move at most `limit` deltas into the roll-ups, oldest first; return how many.

    Whatever happens, a delta counts once: it goes in the transaction that adds it.
    """
    if not session.scalar(_TRY_ALONE):
        return 0
    taken: int = session.execute(_ROLL_UP, {"limit": limit}).scalar_one()
    return taken


def forget_minutes(session: Session, before: datetime, limit: int = 10_000) -> int:
    """Drop at most `limit` sums of minutes before a moment; return how many. Hours stay."""
    key = tuple_(*UsageRollup.__table__.primary_key)
    old = (
        select(*UsageRollup.__table__.primary_key)
        .where(UsageRollup.width_seconds == 60, UsageRollup.start < before)
        .limit(limit)
    )
    gone = session.execute(delete(UsageRollup).where(key.in_(old)).returning(UsageRollup.start))
    return len(gone.all())


def sums(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    since: datetime,
    until: datetime,
    width: timedelta,
    group_by: Sequence[str] = (),
    filters: Filters = EVERYTHING,
) -> Sequence[Row[Any]]:
    """Return a tenant's usage from `since` until before `until` by `bucket`, then by `group_by`.

    Rows have `bucket` (its first moment), the names of `group_by`, and `SUMS`; those without usage
    are left out. `since` and `until` are whole multiples of `width` after 1970; `width` is a
    minute, or whole hours.
    """
    assert set(group_by) <= set(GROUPS)
    parts = _parts(tenant_id, since, until, width, filters)
    by = [parts.c.bucket, *(parts.c[name] for name in group_by)]
    query = select(*by, *(_summed(parts, name) for name in SUMS))
    session.execute(_ROOM)
    return session.execute(query.group_by(*by).order_by(*by)).all()


def _summed(parts: Subquery, name: str) -> ColumnElement[int]:
    total = func.sum(parts.c[name])
    # Money may be more than BIGINT holds; tokens are not, and come without a `Decimal` of each.
    summed: ColumnElement[int] = (
        type_coerce(total, BalanceType) if name == "charge_p" else cast(total, BigInteger)
    )
    return summed.label(name)


def _parts(
    tenant_id: uuid.UUID, since: datetime, until: datetime, width: timedelta, filters: Filters
) -> Subquery:
    step = MINUTE if width == MINUTE else HOUR
    stretch = (tenant_id, since, until, filters)
    bucket = _bucket(UsageRollup.start, width, step)
    rolled = _part(UsageRollup, UsageRollup.start, bucket, *stretch).where(
        UsageRollup.width_seconds == int(step.total_seconds())
    )
    bucket = _bucket(UsageDelta.minute, width, MINUTE)
    fresh = _part(UsageDelta, UsageDelta.minute, bucket, *stretch)
    return union_all(rolled, fresh).subquery()


def _bucket(
    start: InstrumentedAttribute[datetime], width: timedelta, step: timedelta
) -> ColumnElement[datetime]:
    # What is as wide already is not cut again: of a hundred thousand rows that shows.
    bucket: ColumnElement[datetime] = (
        start.expression if width == step else func.date_bin(width, start, _EPOCH)
    )
    return bucket.label("bucket")


def _part(
    table: type[UsageRollup] | type[UsageDelta],
    start: InstrumentedAttribute[datetime],
    bucket: ColumnElement[datetime],
    tenant_id: uuid.UUID,
    since: datetime,
    until: datetime,
    filters: Filters,
) -> Select[Any]:
    columns = [getattr(table, name) for name in GROUPS + SUMS]
    query = select(bucket, *columns).where(
        table.tenant_id == tenant_id, start >= since, start < until
    )
    if filters.project_ids:
        query = query.where(table.project_id.in_(filters.project_ids))
    if filters.api_key_ids:
        query = query.where(table.api_key_id.in_(filters.api_key_ids))
    if filters.models:
        query = query.where(table.model.in_(filters.models))
    return query
