"""Volumes' lives: whose they are, and at which rate they begin. Called by `jobs`.

A volume is billed while it is proven to exist, whether its endpoint runs or is stopped, in whole
GiB of its ordered size. One without a published price costs nothing, and begins to when a price for
it comes into force: nobody is billed for time before that.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.orm import Session

from controlplane.billing.gpu import charges, due, lives
from controlplane.billing.gpu.ticks import HOLD_MS
from controlplane.deployments.models import VolumeInterval
from controlplane.pricing import storage
from controlplane.registry import volumes
from controlplane.registry.volumes import Volume
from controlplane.store import Store


def proofs(store: Store) -> list[Volume]:
    """Return what `lives.proofs` does, of volumes."""
    return lives.proofs(store, volumes.TABLE)


def acknowledge(store: Store, proofs: Iterable[Volume]) -> None:
    """Do what `lives.acknowledge` does, for volumes."""
    lives.acknowledge(store, volumes.TABLE, proofs)


def extend(session: Session, proofs: Iterable[Volume], now: datetime) -> int:
    """Write down what `proofs` prove up to `now`; return how many were dealt with."""
    return lives.extend(session, VolumeInterval, proofs, now, begin=_begin)


def charge(session: Session, now: datetime, *, ahead_ms: int = HOLD_MS, limit: int = 100) -> int:
    """Charge and hold for at most `limit` volumes that are due; return how many changed."""
    return charges.charge(session, due.STORAGE, now, ahead_ms=ahead_ms, limit=limit)


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
    lives.add(
        session,
        VolumeInterval,
        max(began, rate.effective_from),
        {
            "id": uid,
            "claim": proof.claim,
            "tenant_id": tenant_id,
            "deployment_id": deployment.id if deployment else None,
            "deployment": proof.deployment,
            "storage_class": proof.storage_class,
            "size_gib": proof.size_gib,
            "rate_p_per_hour": rate.rate_p_per_gib_hour * proof.size_gib,
        },
    )
