"""Keeps the partitions of `usage_events`: makes those of the months to come, drops old ones.

Called by `jobs`. A partition holds the requests whose UUIDv7 was made in one month, UTC; the oldest
may hold all before it. Ids of no partition, because a clock was wrong or they are no UUIDv7, go to
the stray partition: nothing is refused, and the job tells how many there are.
"""

import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from controlplane import metrics
from controlplane.accounts.models import Hold
from controlplane.usage.models import ExpiredUsage, StagedUsage, UsageDelta

_log = logging.getLogger(__name__)

_DAYS_AHEAD = 62
NO_ID = uuid.UUID(int=0)
_MONTH = re.compile(r"usage_(until_)?(\d{4})_(\d{2})")
# Making and dropping need a moment alone with the table; settlement comes first.
_PATIENCE = text("SET LOCAL lock_timeout = '2s'")
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('usage partitions', 0))")
_COUNT_STRAYS = text("SELECT count(*) FROM partitions.usage_stray")
_LIST = text("""
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = CAST('usage_events' AS regclass)
""")

# Whether what was used from the first moment up to the second is on final invoices alone.
Invoiced = Callable[[Session, datetime, datetime], bool]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: ids made at `since` or later, and before `until`. `since` None: since ever."""

    name: str
    since: datetime | None
    until: datetime

    @property
    def from_id(self) -> uuid.UUID:
        return NO_ID if self.since is None else first_id(self.since)

    @property
    def until_id(self) -> uuid.UUID:
        return first_id(self.until)


def first_id(moment: datetime) -> uuid.UUID:
    """Return the id that every UUIDv7 made before `moment` is below, and none made at it."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


def month_of(moment: datetime) -> Partition:
    """Return the partition of a moment's month."""
    since = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    return Partition(f"usage_{since:%Y_%m}", since, _next_month(since))


def existing(session: Session) -> list[Partition]:
    """Return the partitions of months, oldest first; there is always one."""
    found = []
    for name in session.scalars(_LIST):
        match = _MONTH.fullmatch(name)
        if match is not None:
            month = datetime(int(match[2]), int(match[3]), 1, tzinfo=UTC)
            known = (None, month) if match[1] else (month, _next_month(month))
            found.append(Partition(name, *known))
    return sorted(found, key=lambda partition: partition.until)


def keep(session: Session, now: datetime) -> int:
    """Make the partitions up to some months ahead; return how many were missing.

    Rows of such a month that came before it had a partition move there. Tells of stray rows.
    """
    session.execute(_PATIENCE)
    session.execute(_ALONE)
    month = month_of(existing(session)[-1].until)
    last = month_of(now + timedelta(days=_DAYS_AHEAD))
    made = 0
    while month.until <= last.until:
        _make(session, month)
        month, made = month_of(month.until), made + 1
    strays = session.scalar(_COUNT_STRAYS) or 0
    metrics.USAGE_STRAYS.set(strays)
    if strays:
        _log.warning("usage_of_no_month", extra={"requests": strays})
    return made


def expire(session: Session, now: datetime, *, keep_days: int, invoiced: Invoiced) -> int:
    """Drop the oldest partition if it may go; return how many were dropped, one at most.

    It may go when its last day is `keep_days` ago and nothing will be asked of its rows again:
    every request is settled, its sums are in the roll-ups, and `invoiced` says so. What each
    tenant's rows came to stays in `usage_expired`; the ledger stays whole.
    """
    session.execute(_PATIENCE)
    session.execute(_ALONE)
    oldest = existing(session)[0]
    if oldest.until > now - timedelta(days=keep_days):
        return 0
    session.execute(text(f"LOCK TABLE partitions.{oldest.name} IN SHARE MODE"))
    since = oldest.since or datetime.fromtimestamp(0, UTC)
    if _is_busy(session, oldest) or not invoiced(session, since, oldest.until):
        _log.warning("usage_not_expired", extra={"partition": oldest.name})
        return 0
    session.execute(
        text(f"""
            INSERT INTO usage_expired (tenant_id, from_id, until_id, requests, hit_tokens,
                miss_tokens, output_tokens, reasoning_tokens, charge_p)
            SELECT tenant_id, :from_id, :until_id, count(*), sum(hit_tokens), sum(miss_tokens),
                sum(output_tokens), sum(reasoning_tokens), sum(charge_p)
            FROM partitions.{oldest.name} GROUP BY tenant_id
        """),
        {"from_id": oldest.from_id, "until_id": oldest.until_id},
    )
    session.execute(text(f"DROP TABLE partitions.{oldest.name}"))
    _log.info("usage_expired", extra={"partition": oldest.name})
    return 1


def has_expired(session: Session, *, tenant_id: uuid.UUID, request_id: uuid.UUID) -> bool:
    """Return whether a tenant's usage of the time of a request has been dropped."""
    found = select(ExpiredUsage).where(
        ExpiredUsage.tenant_id == tenant_id,
        ExpiredUsage.from_id <= request_id,
        ExpiredUsage.until_id > request_id,
    )
    return bool(session.scalar(select(found.exists())))


def _make(session: Session, month: Partition) -> None:
    name = f"partitions.{month.name}"
    session.execute(text(f"CREATE TABLE {name} (LIKE usage_events INCLUDING ALL)"))
    # What came before its partition lies among the strays, and would refuse its making.
    session.execute(text("ALTER TABLE partitions.usage_stray DISABLE TRIGGER through_parent"))
    session.execute(
        text(f"""
            WITH moved AS (
                DELETE FROM partitions.usage_stray
                WHERE request_id >= :from_id AND request_id < :until_id RETURNING *
            ) INSERT INTO {name} SELECT * FROM moved
        """),
        {"from_id": month.from_id, "until_id": month.until_id},
    )
    session.execute(text("ALTER TABLE partitions.usage_stray ENABLE TRIGGER through_parent"))
    session.execute(
        text(
            f"ALTER TABLE usage_events ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{month.from_id}') TO ('{month.until_id}')"
        )
    )
    session.execute(
        text(f"""
            CREATE TRIGGER through_parent BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
            ON {name} FOR EACH STATEMENT EXECUTE FUNCTION refuse_direct()
        """)
    )


def _is_busy(session: Session, partition: Partition) -> bool:
    """Whether a request of the partition is held, staged, or on its way to the roll-ups."""

    def of_it(request_id: InstrumentedAttribute[uuid.UUID]) -> ColumnElement[bool]:
        return and_(request_id >= partition.from_id, request_id < partition.until_id)

    reasons = (
        select(Hold).where(Hold.state == "open", of_it(Hold.request_id)),
        select(StagedUsage).where(of_it(StagedUsage.request_id)),
        select(UsageDelta).where(UsageDelta.minute < partition.until),
    )
    return bool(session.scalar(select(or_(*(reason.exists() for reason in reasons)))))


def _next_month(month: datetime) -> datetime:
    return datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
