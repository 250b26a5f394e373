"""Turns proofs that volumes exist into intervals, and charges them. Called by `jobs`.

A volume is billed while it is proven to exist, whether its endpoint runs or is stopped, in whole
GiB of its ordered size. One without a published price costs nothing, and begins to when a price for
it comes into force: nobody is billed for time before that.
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
from controlplane.deployments.models import VolumeInterval
from controlplane.pricing import storage
from controlplane.registry import volumes
from controlplane.registry.volumes import Volume
from controlplane.store import Store


def proofs(store: Store) -> list[Volume]:
    """Return what the operator published, however long ago: a proof does not age.

    Raises:
        redis.RedisError: the store is down.
    """
    return volumes.TABLE.read(store, 0.0, stale_seconds=math.inf)


def acknowledge(store: Store, proofs: Iterable[Volume]) -> None:
    """Take volumes out of the store that are gone; call it when they have been written down.

    Raises:
        redis.RedisError: the store is down; what is read again costs nothing again.
    """
    for proof in proofs:
        if proof.ended:
            volumes.TABLE.withdraw(store, proof.uid)


def extend(session: Session, proofs: Iterable[Volume], now: datetime) -> int:
    """Write down what `proofs` prove up to `now`; return how many were dealt with."""
    by_id = {uid: proof for proof in proofs if (uid := lives.as_uuid(proof.uid)) is not None}
    known = set(session.scalars(select(VolumeInterval.id).where(VolumeInterval.id.in_(by_id))))
    for uid in sorted(by_id.keys() - known):
        _begin(session, uid, by_id[uid], now)
    intervals = session.scalars(
        select(VolumeInterval)
        .where(VolumeInterval.id.in_(by_id))
        .order_by(VolumeInterval.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for interval in intervals.all():
        lives.go_on(interval, by_id[interval.id], now)
    session.flush()
    return len(by_id)


def charge(session: Session, now: datetime, *, ahead_ms: int = HOLD_MS, limit: int = 100) -> int:
    """Charge and hold for at most `limit` volumes that are due; return how many changed."""
    return charges.charge(session, charges.STORAGE, now, ahead_ms=ahead_ms, limit=limit)


def _begin(session: Session, uid: uuid.UUID, proof: Volume, now: datetime) -> None:
    """Add an interval with nothing proven yet, unless it is there or nothing is asked for it."""
    tenant_id, deployment = lives.owner(session, proof)
    if tenant_id is None or not proof.size_gib:
        lives.tell("unknown_tenant", proof.claim, deployment=proof.deployment)
        return
    began = lives.moment(lives.began_ms(proof, deployment, now))
    rate = storage.rate(session, storage_class=proof.storage_class, at=began)
    if rate is None:
        rate = storage.rate(session, storage_class=proof.storage_class, at=now)
    if rate is None:
        return
    started_at = max(began, rate.effective_from)
    session.execute(
        insert(VolumeInterval)
        .values(
            id=uid,
            claim=proof.claim,
            tenant_id=tenant_id,
            deployment_id=deployment.id if deployment else None,
            deployment=proof.deployment,
            storage_class=proof.storage_class,
            size_gib=proof.size_gib,
            rate_p_per_hour=rate.rate_p_per_gib_hour * proof.size_gib,
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
