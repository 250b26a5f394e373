"""Turns proofs of lives into intervals: the one way for replicas and volumes. Called by both.

A proof says "there without a break from then until then". What is proven up to now is written down
once, whatever order proofs come in; `charges` moves the money of it.
"""

import logging
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.billing.gpu.ticks import Life, extended
from controlplane.deployments import rows
from controlplane.deployments.models import Deployment, GpuInterval, VolumeInterval
from controlplane.registry.heartbeats import Table
from controlplane.registry.leases import Lease
from controlplane.registry.volumes import Volume
from controlplane.store import Store
from controlplane.tenants.models import Tenant

_log = logging.getLogger(__name__)

Interval: TypeAlias = GpuInterval | VolumeInterval
_Proof = TypeVar("_Proof", Lease, Volume)


def proofs(store: Store, table: Table[_Proof]) -> list[_Proof]:
    """Return what the operator published, however long ago: a proof does not age.

    Raises:
        redis.RedisError: the store is down.
    """
    return table.read(store, 0.0, stale_seconds=math.inf)


def acknowledge(store: Store, table: Table[_Proof], proofs: Iterable[_Proof]) -> None:
    """Take lives out of the store that are over; call it when they have been written down.

    Raises:
        redis.RedisError: the store is down; what is read again costs nothing again.
    """
    for proof in proofs:
        if proof.ended:
            table.withdraw(store, proof.uid)


def extend(
    session: Session,
    interval: type[Interval],
    proofs: Iterable[_Proof],
    now: datetime,
    *,
    begin: Callable[[Session, uuid.UUID, _Proof, datetime], None],
) -> int:
    """Write down what `proofs` prove up to `now`; return how many were dealt with.

    Args:
        session: the transaction.
        interval: the table of such lives.
        proofs: of lives of one kind.
        now: the moment.
        begin: adds the interval of a life that is not known, with nothing proven yet.
    """
    # Both tables have the same columns; the first stands for either.
    table = cast(type[GpuInterval], interval)
    by_id = {uid: proof for proof in proofs if (uid := as_uuid(proof.uid)) is not None}
    known = set(session.scalars(select(table.id).where(table.id.in_(by_id))))
    for uid in sorted(by_id.keys() - known):
        begin(session, uid, by_id[uid], now)
    # Another process may have begun or extended the same lives meanwhile: decide under the locks.
    found = session.scalars(
        select(table)
        .where(table.id.in_(by_id))
        .order_by(table.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for life in found.all():
        _go_on(life, by_id[life.id], now)
    session.flush()
    return len(by_id)


def add(
    session: Session, interval: type[Interval], started_at: datetime, values: Mapping[str, object]
) -> None:
    """Add an interval with nothing proven yet, unless it is there."""
    nothing = dict.fromkeys(
        ("proven_ms", "billed_ms", "billed_p", "waived_p", "rated_from_ms", "rated_p", "held_p"), 0
    )
    moments = {"started_at": started_at, "proven_until": started_at}
    session.execute(
        insert(interval).values({**values, **moments, **nothing}).on_conflict_do_nothing()
    )


def owner(session: Session, proof: Lease | Volume) -> tuple[uuid.UUID | None, Deployment | None]:
    """Return the tenant and the deployment that a proof is of; a tenant of None is unknown."""
    tenant_id = as_uuid(proof.tenant_id)
    if tenant_id is None or session.get(Tenant, tenant_id) is None:
        return None, None
    return tenant_id, rows.by_key(session, proof.deployment)


def began_ms(proof: Lease | Volume, deployment: Deployment | None, now: datetime) -> int:
    """Return when a proven life began: whatever a proof says, not before it was ordered."""
    since_ms, _ = _bounds(proof, now)
    if deployment is not None and deployment.managed == "row":
        return max(since_ms, ms(deployment.created_at))
    return since_ms


def _go_on(interval: Interval, proof: Lease | Volume, now: datetime) -> None:
    """Add a proof to a locked interval; one that it has already adds nothing."""
    since_ms, until_ms = _bounds(proof, now)
    before = Life(interval.proven_ms, ms(interval.proven_until))
    life = extended(before, since_ms, until_ms)
    if life != before:
        interval.proven_ms, interval.proven_until = life.proven_ms, moment(life.until_ms)
        interval.ended_at = None
    if proof.ended and interval.ended_at is None:
        interval.ended_at = interval.proven_until
    if isinstance(interval, GpuInterval) and isinstance(proof, Lease):
        interval.interrupted = interval.interrupted or (proof.ended and proof.interrupted)


def _bounds(proof: Lease | Volume, now: datetime) -> tuple[int, int]:
    """Return from when until when a proof proves, in ms; a clock that is ahead proves no future."""
    return int(proof.alive_since * 1000), min(int(proof.published_at * 1000), ms(now))


def ms(moment: datetime) -> int:
    """Return ms since 1970."""
    return round(moment.timestamp() * 1000)


def moment(ms: int) -> datetime:
    """Return the moment so many ms after the beginning of 1970."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def as_uuid(text: str) -> uuid.UUID | None:
    """Return a UUID; None: the text is none."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def tell(reason: str, subject: str, **details: object) -> None:
    """Count and log what is not billed, or not whole."""
    metrics.GPU_TIME_DISCREPANCIES.labels(reason).inc()
    _log.error("gpu_time_not_billed", extra={"reason": reason, "replica": subject, **details})
