"""Replicas' lives: whose they are, and at which rate they begin. Called by `jobs`.

`lives` does the proofs, as of volumes, and `charges` the money.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.orm import Session

from controlplane.billing.gpu import charges, due, lives
from controlplane.billing.gpu.ticks import HOLD_MS
from controlplane.crd.base import Path
from controlplane.deployments.models import GpuInterval
from controlplane.pricing import gpu
from controlplane.registry import leases
from controlplane.registry.leases import Lease
from controlplane.store import Store

BILLED_PATHS = (Path.DEDICATED, Path.BARE)


def proofs(store: Store) -> list[Lease]:
    """Return what `lives.proofs` does, of replicas."""
    return lives.proofs(store, leases.TABLE)


def acknowledge(store: Store, proofs: Iterable[Lease]) -> None:
    """Do what `lives.acknowledge` does, for replicas."""
    lives.acknowledge(store, leases.TABLE, proofs)


def extend(session: Session, proofs: Iterable[Lease], now: datetime) -> int:
    """Write down what `proofs` prove up to `now`; return how many were dealt with."""
    billed = [proof for proof in proofs if proof.path in BILLED_PATHS]
    return lives.extend(session, GpuInterval, billed, now, begin=_begin)


def charge(session: Session, now: datetime, *, ahead_ms: int = HOLD_MS, limit: int = 100) -> int:
    """Charge and hold for at most `limit` replicas that are due; return how many changed."""
    return charges.charge(session, due.GPU_TIME, now, ahead_ms=ahead_ms, limit=limit)


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
    lives.add(
        session,
        GpuInterval,
        started_at,
        {
            "id": uid,
            "replica": proof.replica,
            "tenant_id": tenant_id,
            "deployment_id": deployment.id if deployment else None,
            "deployment": proof.deployment,
            "path": proof.path,
            "configuration": proof.configuration,
            "gpus": proof.gpus,
            "spot": proof.spot,
            "interrupted": False,
            "rate_p_per_hour": rate_p or 0,
            "list_p_per_hour": rate_p or 0,
        },
    )
