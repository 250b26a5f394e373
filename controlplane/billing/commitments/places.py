"""Gives live replicas their places in reservations, and with them their rates.

Called by `billing.gpu.charges` between two ticks, with the accounts locked. A reservation of N has
N places; a replica keeps its place until it ends or the term does, and the one that waits longest
takes the next. So a place that becomes free is taken within a tick, and a replica that outlives the
term goes back to the rate that was pinned when it began.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.billing.gpu.ticks import PATIENCE_MS
from controlplane.deployments.commitments import Commitment
from controlplane.deployments.models import GpuInterval

_RECENT = timedelta(milliseconds=PATIENCE_MS)


def assign(
    session: Session, due: Sequence[GpuInterval], now: datetime
) -> dict[uuid.UUID, Commitment]:
    """Put every locked interval of `due` in its place; return the reservations, locked, by id.

    The rate of an interval changes only here, at the end of what has been billed.
    """
    reserved = _reservations(session, {it.tenant_id for it in due}, now)
    taken = _taken(session, reserved, but={it.id for it in due}, now=now)
    for interval in sorted(due, key=lambda it: (it.commitment_id is None, it.started_at, it.id)):
        place = _place(interval, reserved, taken)
        if place is not None:
            taken[place.id] += 1
        _rate(interval, place)
    return reserved


def _reservations(
    session: Session, tenant_ids: Collection[uuid.UUID], now: datetime
) -> dict[uuid.UUID, Commitment]:
    found = session.scalars(
        select(Commitment)
        .where(
            Commitment.tenant_id.in_(tenant_ids),
            Commitment.kind == "reserved",
            Commitment.starts_at <= now,
            Commitment.ends_at > now,
        )
        .order_by(Commitment.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {commitment.id: commitment for commitment in found}


def _taken(
    session: Session,
    reserved: Collection[uuid.UUID],
    *,
    but: Collection[uuid.UUID],
    now: datetime,
) -> dict[uuid.UUID, int]:
    """Return how many places are taken, by replicas that live and are not among `but`."""
    taken = dict.fromkeys(reserved, 0)
    if not reserved:
        return taken
    living = session.scalars(
        select(GpuInterval.commitment_id).where(
            GpuInterval.commitment_id.in_(reserved),
            GpuInterval.id.not_in(but),
            GpuInterval.ended_at.is_(None),
            GpuInterval.proven_until > now - _RECENT,
        )
    )
    for commitment_id in living:
        assert commitment_id is not None
        taken[commitment_id] += 1
    return taken


def _place(
    interval: GpuInterval, reserved: dict[uuid.UUID, Commitment], taken: dict[uuid.UUID, int]
) -> Commitment | None:
    kept = reserved.get(interval.commitment_id) if interval.commitment_id else None
    candidates = [kept] if kept is not None else [*reserved.values()]
    for commitment in candidates:
        assert commitment.replicas is not None
        fits = (
            commitment.tenant_id == interval.tenant_id
            and commitment.configuration == interval.configuration
            and not interval.spot
        )
        if fits and taken[commitment.id] < commitment.replicas:
            return commitment
    return None


def _rate(interval: GpuInterval, place: Commitment | None) -> None:
    interval.commitment_id = place.id if place is not None else None
    rate_p = place.rate_p_per_hour if place is not None else None
    rate_p = interval.list_p_per_hour if rate_p is None else rate_p
    if rate_p != interval.rate_p_per_hour:
        interval.rated_from_ms = interval.billed_ms
        interval.rated_p = interval.billed_p + interval.waived_p
        interval.rate_p_per_hour = rate_p
