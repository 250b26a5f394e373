"""Stages the ends of requests into PostgreSQL. Called by the gateway's shipping and recovery."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Uuid, any_, bindparam, exc, select, text, union
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.arrays import ArrayOf
from controlplane.db import copy_in
from controlplane.usage.models import StagedUsage, UsageEvent
from controlplane.usage.traces import LOST, Trace

_BATCH = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_REASON_CHARS = 64

_COLUMNS = (
    "request_id",
    "tenant_id",
    "api_key_id",
    "model",
    "path",
    "replica",
    "thinking",
    "streamed",
    "hit_tokens",
    "miss_tokens",
    "output_tokens",
    "reasoning_tokens",
    "finish_reason",
    "started_at",
    "first_token_at",
    "finished_at",
    "price_version_id",
    "band",
)
_BY_INDEX = text("SET LOCAL enable_seqscan = off")
_REQUESTS = any_(bindparam("request_ids", type_=ArrayOf(Uuid)))
_KNOWN = union(
    select(UsageEvent.request_id).where(UsageEvent.request_id == _REQUESTS),
    select(StagedUsage.request_id).where(StagedUsage.request_id == _REQUESTS),
)


def by_index(session: Session) -> None:
    """Have the rest of this transaction find rows by their keys alone, never by reading a table.

    For a journal's worth of requests at once: they are staged, or settled, faster than the server
    counts its tables anew, and what it takes for small it reads whole for every batch.
    """
    session.execute(_BY_INDEX)


def known(session: Session, request_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return those requests that are staged or settled."""
    return set(session.scalars(_KNOWN, {"request_ids": list(request_ids)}))


def stage(session: Session, traces: Sequence[Trace]) -> int:
    """Queue requests for settlement; return how many are new.

    Any repetition is harmless: what is staged or settled already is passed over. A trace without
    an end gets the finish reason `lost`.
    """
    return sum(
        _stage(session, traces[start : start + _BATCH]) for start in range(0, len(traces), _BATCH)
    )


def _stage(session: Session, traces: Sequence[Trace]) -> int:
    request_ids = [trace.opened.request_id for trace in traces]
    there = known(session, request_ids)
    # By id, for the one that is staged twice in one call.
    fresh = {trace.opened.request_id: trace for trace in reversed(traces)}
    rows = [_row(trace) for request_id, trace in fresh.items() if request_id not in there]
    if not rows:
        return 0
    try:
        with session.begin_nested():
            copy_in(session, StagedUsage.__tablename__, _COLUMNS, rows)
    except exc.IntegrityError:
        # Somebody staged one of them meanwhile; COPY knows no exceptions.
        return _insert(session, rows)
    return len(rows)


def _insert(session: Session, rows: Sequence[tuple[object, ...]]) -> int:
    statement = (
        insert(StagedUsage)
        .on_conflict_do_nothing(index_elements=[StagedUsage.request_id])
        .returning(StagedUsage.request_id)
        # One statement for all rows: else each change of a NULL would start another.
        .execution_options(render_nulls=True)
    )
    values = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    return len(session.scalars(statement, values).all())


def _row(trace: Trace) -> tuple[object, ...]:
    opened, usage = trace.opened, trace.usage
    return (
        opened.request_id,
        opened.tenant_id,
        opened.api_key_id,
        opened.model,
        opened.path,
        trace.replica,
        opened.thinking,
        opened.streamed,
        usage.hit_tokens,
        usage.miss_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        # An engine's word; PostgreSQL takes no NUL in text.
        (trace.finish_reason or LOST).replace("\0", "")[:_MAX_REASON_CHARS],
        _moment(opened.started_at_us),
        _moment(trace.first_token_at_us),
        _moment(trace.finished_at_us),
        opened.price_version_id,
        opened.band,
    )


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
