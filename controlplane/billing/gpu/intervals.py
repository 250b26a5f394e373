"""Turns proofs of replicas' lives into intervals. Called by `jobs`; `charges` moves their money.

`extend` writes down what was proven, once, whatever order proofs come in.
"""

import math
import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.billing.gpu import charges, lives
from controlplane.billing.gpu.ticks import HOLD_MS
from controlplane.crd.base import Path
from controlplane.deployments.models import GpuInterval
from controlplane.pricing import gpu
from controlplane.registry import leases
from controlplane.registry.leases import Lease
from controlplane.store import Store

BILLED_PATHS = (Path.DEDICATED, Path.BARE)


def proofs(store: Store) -> list[Lease]:
    """Return what the operator published, however long ago: a proof does not age.

    Raises:
        redis.RedisError: the store is down.
    """
    return leases.TABLE.read(store, 0.0, stale_seconds=math.inf)


def acknowledge(store: Store, proofs: Iterable[Lease]) -> None:
    """Take lives out of the store that are over; call it when they have been written down.

    Raises:
        redis.RedisError: the store is down; what is read again costs nothing again.
    """
    for proof in proofs:
        if proof.ended:
            leases.TABLE.withdraw(store, proof.uid)


def extend(session: Session, proofs: Iterable[Lease], now: datetime) -> int:
    """Write down what `proofs` prove up to `now`; return how many were dealt with."""
    by_id = {lives.as_uuid(proof.uid): proof for proof in proofs if proof.path in BILLED_PATHS}
    ids = [uid for uid in by_id if uid is not None]
    known = set(session.scalars(select(GpuInterval.id).where(GpuInterval.id.in_(ids))))
    for uid in sorted(set(ids) - known):
        _begin(session, uid, by_id[uid], now)
    # Another process may have begun or extended the same lives meanwhile: decide under the locks.
    intervals = session.scalars(
        select(GpuInterval)
        .where(GpuInterval.id.in_(ids))
        .order_by(GpuInterval.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for interval in intervals.all():
        proof = by_id[interval.id]
        lives.go_on(interval, proof, now)
        interval.interrupted = interval.interrupted or (proof.ended and proof.interrupted)
    session.flush()
    return len(by_id)


def charge(session: Session, now: datetime, *, ahead_ms: int = HOLD_MS, limit: int = 100) -> int:
    """Charge and hold for at most `limit` replicas that are due; return how many changed."""
    return charges.charge(session, charges.GPU_TIME, now, ahead_ms=ahead_ms, limit=limit)


def _begin(session: Session, uid: uuid.UUID, proof: Lease, now: datetime) -> None:
    """Add an interval with nothing proven yet, unless it is there."""
    tenant_id, deployment = lives.owner(session, proof)
    if tenant_id is None:
        lives.tell("unknown_tenant", proof.replica, deployment=proof.deployment)
        return
    started_at = lives.moment(lives.began_ms(proof, deployment, now))
    rate_p = gpu.rate_p_per_hour(
        session, configuration=proof.configuration, spot=proof.spot, at=started_at
    )
    if rate_p is None:
        # Nobody is billed at a rate that was not published when the time began.
        lives.tell("no_price", proof.replica, configuration=proof.configuration)
    session.execute(
        insert(GpuInterval)
        .values(
            id=uid,
            replica=proof.replica,
            tenant_id=tenant_id,
            deployment_id=deployment.id if deployment else None,
            deployment=proof.deployment,
            path=proof.path,
            configuration=proof.configuration,
            gpus=proof.gpus,
            spot=proof.spot,
            interrupted=False,
            rate_p_per_hour=rate_p or 0,
            list_p_per_hour=rate_p or 0,
            started_at=started_at,
            proven_until=started_at,
            proven_ms=0,
            billed_ms=0,
            billed_p=0,
            waived_p=0,
            rated_from_ms=0,
            rated_p=0,
            held_p=0,
        )
        .on_conflict_do_nothing()
    )
