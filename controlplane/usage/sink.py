"""Stages the ends of requests into PostgreSQL. Called by the gateway's shipping and recovery."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.usage.models import StagedUsage, UsageEvent
from controlplane.usage.traces import LOST, Trace

_BATCH = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_REASON_CHARS = 64


# One statement for all rows: without `render_nulls` each change of a NULL would start another.
_STAGE = (
    insert(StagedUsage)
    .on_conflict_do_nothing(index_elements=[StagedUsage.request_id])
    .returning(StagedUsage.request_id)
    .execution_options(render_nulls=True)
)


def stage(session: Session, traces: Sequence[Trace]) -> int:
    """Queue requests for settlement; return how many are new.

    Any repetition is harmless: what is staged or settled already is passed over. A trace without
    an end gets the finish reason `lost`.
    """
    staged = 0
    for start in range(0, len(traces), _BATCH):
        batch = traces[start : start + _BATCH]
        settled = _settled(session, [trace.opened.request_id for trace in batch])
        rows = [_row(trace) for trace in batch if trace.opened.request_id not in settled]
        if rows:
            inserted = session.scalars(_STAGE, rows)
            staged += len(inserted.all())
    return staged


def _settled(session: Session, request_ids: list[uuid.UUID]) -> set[uuid.UUID]:
    return set(
        session.scalars(select(UsageEvent.request_id).where(UsageEvent.request_id.in_(request_ids)))
    )


def _row(trace: Trace) -> dict[str, object]:
    opened, usage = trace.opened, trace.usage
    return {
        "request_id": opened.request_id,
        "tenant_id": opened.tenant_id,
        "api_key_id": opened.api_key_id,
        "model": opened.model,
        "path": opened.path,
        "replica": trace.replica,
        "thinking": opened.thinking,
        "streamed": opened.streamed,
        "hit_tokens": usage.hit_tokens,
        "miss_tokens": usage.miss_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        # An engine's word; PostgreSQL takes no NUL in text.
        "finish_reason": (trace.finish_reason or LOST).replace("\0", "")[:_MAX_REASON_CHARS],
        "started_at": _moment(opened.started_at_us),
        "first_token_at": _moment(trace.first_token_at_us),
        "finished_at": _moment(trace.finished_at_us),
        "price_version_id": opened.price_version_id,
        "band": opened.band,
    }


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
