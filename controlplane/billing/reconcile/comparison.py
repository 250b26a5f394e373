"""Holds every bill against its engines' word, once both are there. Called by `jobs`.

Waiting attempts are the queue. A request is judged when its bill has been settled and every engine
that may have had a part in it was heard; when none has come for so long that none will, it is
judged without. Bills that no engine has told of are found by
going through settled requests behind the journals' reading. Verdicts are told once: as a row for a
person and in a metric.
"""

import logging
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.accounts.models import Hold
from controlplane.billing.reconcile.models import EngineJournal, Finding, WitnessedAttempt
from controlplane.billing.reconcile.verdict import (
    NOTHING,
    Attempt,
    Kind,
    verdict,
    witnessed,
)
from controlplane.db import first_uuid7
from controlplane.usage.models import StagedUsage, UsageEvent
from controlplane.usage.records import TokenUsage

# A gateway that died has its journal replayed within this time, or somebody must look.
BILL_COMES_WITHIN = timedelta(minutes=30)
# A journal is read every few seconds; what it has not told by then it does not know.
WITNESS_COMES_WITHIN = timedelta(minutes=2)
LOOKS_BACK = timedelta(hours=1)
KEPT = timedelta(days=7)
INTERRUPTED = "interrupted"

_log = logging.getLogger(__name__)

# Another engine ran with this one and has not been heard since: perhaps it was killed, and its part
# of the answer, which the bill has, is in a journal that is read when it is back.
_MAY_HEAR_MORE = (
    select(EngineJournal)
    .where(
        EngineJournal.kept,
        EngineJournal.replica != WitnessedAttempt.replica,
        EngineJournal.read_until > WitnessedAttempt.started_at - WITNESS_COMES_WITHIN,
        EngineJournal.read_until < WitnessedAttempt.ended_at,
    )
    .exists()
)


def compare(session: Session, now: datetime, limit: int = 500) -> int:
    """Judge at most `limit` requests that engines have told of; return how many were."""
    late = now - BILL_COMES_WITHIN
    is_settled = (
        select(UsageEvent).where(UsageEvent.request_id == WitnessedAttempt.request_id).exists()
    )
    may_be_settled = (
        select(StagedUsage).where(StagedUsage.request_id == WitnessedAttempt.request_id).exists()
        | select(Hold)
        .where(Hold.request_id == WitnessedAttempt.request_id, Hold.state == "open")
        .exists()
    )
    waiting = session.scalars(
        select(WitnessedAttempt.request_id)
        .where(
            WitnessedAttempt.compared_at.is_(None),
            (WitnessedAttempt.ended_at < now - WITNESS_COMES_WITHIN) | ~_MAY_HEAR_MORE,
            is_settled | ((WitnessedAttempt.ended_at < late) & ~may_be_settled),
        )
        .order_by(WitnessedAttempt.ended_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    request_ids = set(waiting)
    if not request_ids:
        return 0
    attempts = _attempts(session, request_ids)
    bills = _bills(session, request_ids)
    for request_id in sorted(request_ids):
        _judge(session, request_id, bills.get(request_id), attempts[request_id])
    session.execute(
        update(WitnessedAttempt)
        .where(WitnessedAttempt.request_id.in_(request_ids))
        .values(compared_at=now)
        .execution_options(synchronize_session=False)
    )
    return len(request_ids)


def find_unwitnessed(session: Session, now: datetime) -> int:
    """Find bills of the last hour's requests that no engine knows, though its journal has been read
    past them; return how many are new."""
    unknown = session.execute(
        select(UsageEvent.request_id, UsageEvent.replica, *_USAGE)
        .join(EngineJournal, EngineJournal.replica == UsageEvent.replica)
        .where(
            EngineJournal.kept,
            UsageEvent.request_id >= first_uuid7(now - LOOKS_BACK),
            UsageEvent.started_at > EngineJournal.since,
            UsageEvent.finished_at < EngineJournal.read_until - WITNESS_COMES_WITHIN,
            UsageEvent.output_tokens + UsageEvent.hit_tokens + UsageEvent.miss_tokens > 0,
            ~select(WitnessedAttempt)
            .where(WitnessedAttempt.request_id == UsageEvent.request_id)
            .exists(),
        )
    ).all()
    return sum(
        _tell(session, request_id, "unwitnessed", replica, TokenUsage(*usage), NOTHING)
        for request_id, replica, *usage in unknown
    )


def forget(session: Session, now: datetime, limit: int = 5000) -> int:
    """Delete attempts that have been compared and are old; return how many."""
    old = (
        select(WitnessedAttempt.replica, WitnessedAttempt.attempt_id)
        .where(
            WitnessedAttempt.ended_at < now - KEPT,
            WitnessedAttempt.compared_at.is_not(None),
        )
        .limit(limit)
        .subquery()
    )
    statement = WitnessedAttempt.__table__.delete().where(  # type: ignore[attr-defined]
        WitnessedAttempt.replica == old.c.replica,
        WitnessedAttempt.attempt_id == old.c.attempt_id,
    )
    return session.connection().execute(statement).rowcount


_USAGE = (
    UsageEvent.hit_tokens,
    UsageEvent.miss_tokens,
    UsageEvent.output_tokens,
    UsageEvent.reasoning_tokens,
)


def _attempts(
    session: Session, request_ids: Collection[uuid.UUID]
) -> Mapping[uuid.UUID, list[WitnessedAttempt]]:
    found = session.scalars(
        select(WitnessedAttempt)
        .where(WitnessedAttempt.request_id.in_(request_ids))
        .order_by(WitnessedAttempt.started_at)
    )
    by_request = defaultdict(list)
    for attempt in found:
        by_request[attempt.request_id].append(attempt)
    return by_request


def _bills(
    session: Session, request_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, tuple[TokenUsage, str]]:
    rows = session.execute(
        select(UsageEvent.request_id, UsageEvent.finish_reason, *_USAGE).where(
            UsageEvent.request_id.in_(request_ids)
        )
    )
    return {request_id: (TokenUsage(*usage), reason) for request_id, reason, *usage in rows}


def _judge(
    session: Session,
    request_id: uuid.UUID,
    bill: tuple[TokenUsage, str] | None,
    rows: Sequence[WitnessedAttempt],
) -> None:
    usage, reason = bill if bill is not None else (None, None)
    attempts = [
        Attempt(
            TokenUsage(it.hit_tokens, it.miss_tokens, it.output_tokens, it.reasoning_tokens),
            is_exact=it.finish_reason != INTERRUPTED,
            took_over=it.resumed_tokens > 0,
        )
        for it in rows
    ]
    kind = verdict(usage, reason, attempts)
    if kind is not None:
        _tell(session, request_id, kind, rows[-1].replica, usage or NOTHING, witnessed(attempts))


def _tell(
    session: Session,
    request_id: uuid.UUID,
    kind: Kind,
    replica: str | None,
    billed: TokenUsage,
    seen: TokenUsage,
) -> bool:
    """Write a finding down, the first of its request; return whether it is."""
    added = session.scalar(
        insert(Finding)
        .values(
            request_id=request_id,
            kind=kind,
            replica=replica,
            **{f"billed_{name}": value for name, value in _named(billed)},
            **{f"witnessed_{name}": value for name, value in _named(seen)},
        )
        .on_conflict_do_nothing()
        .returning(func.now())
    )
    if added is None:
        return False
    metrics.RECONCILIATION_FINDINGS.labels(kind).inc()
    _log.error("bill_differs", extra={"request_id": request_id, "kind": kind, "replica": replica})
    return True


def _named(usage: TokenUsage) -> list[tuple[str, int]]:
    return [(name, getattr(usage, name)) for name in TokenUsage.__struct_fields__]
