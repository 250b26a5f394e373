"""What intervals of replicas and of volumes have in common: their proofs. Called by both.

A proof says "there without a break from then until then". Written down is what is proven up to now.
"""

import logging
import uuid
from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.billing.gpu.ticks import Life, extended
from controlplane.deployments import rows
from controlplane.deployments.models import Deployment, GpuInterval, VolumeInterval
from controlplane.tenants.models import Tenant

_log = logging.getLogger(__name__)


class Proof(Protocol):
    """A record of the registry; times are seconds since 1970 UTC."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def deployment(self) -> str: ...
    @property
    def alive_since(self) -> float: ...
    @property
    def published_at(self) -> float: ...
    @property
    def ended(self) -> bool: ...


def owner(session: Session, proof: Proof) -> tuple[uuid.UUID | None, Deployment | None]:
    """Return the tenant and the deployment that a proof is of; a tenant of None is unknown."""
    tenant_id = as_uuid(proof.tenant_id)
    if tenant_id is None or session.get(Tenant, tenant_id) is None:
        return None, None
    return tenant_id, rows.by_key(session, proof.deployment)


def began_ms(proof: Proof, deployment: Deployment | None, now: datetime) -> int:
    """Return when a proven life began: whatever a proof says, not before it was ordered."""
    since_ms, _ = bounds(proof, now)
    if deployment is not None and deployment.managed == "row":
        return max(since_ms, ms(deployment.created_at))
    return since_ms


def go_on(interval: GpuInterval | VolumeInterval, proof: Proof, now: datetime) -> None:
    """Add a proof to a locked interval; one that it has already adds nothing."""
    since_ms, until_ms = bounds(proof, now)
    before = Life(interval.proven_ms, ms(interval.proven_until))
    life = extended(before, since_ms, until_ms)
    if life != before:
        interval.proven_ms, interval.proven_until = life.proven_ms, moment(life.until_ms)
        interval.ended_at = None
    if proof.ended and interval.ended_at is None:
        interval.ended_at = interval.proven_until


def bounds(proof: Proof, now: datetime) -> tuple[int, int]:
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
