"""Turns proofs of life into intervals, and intervals into charges. Called by `jobs`.

`extend` writes down what was proven; `charge` moves money for it, a minute at a time. A charge, its
ledger rows and the interval's new figures commit together, so a crash anywhere changes no sum.
Time that the account does not cover is waived and told to the operator; `stops` ends what costs
it.
"""

import logging
import math
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Numeric, cast, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.accounts import funds, ledger
from controlplane.accounts.funds import LockedFunds
from controlplane.accounts.ledger import Entry, GpuTick, Posting
from controlplane.accounts.models import Account
from controlplane.billing.gpu.ticks import PATIENCE_MS, TICK_MS, Life, Tick, extended, tick
from controlplane.crd.base import Path
from controlplane.deployments import rows
from controlplane.deployments.models import GpuInterval
from controlplane.pricing import gpu
from controlplane.pricing.rating import MS_PER_HOUR
from controlplane.registry import leases
from controlplane.registry.leases import Lease
from controlplane.store import Store
from controlplane.tenants.models import Tenant

_log = logging.getLogger(__name__)

BILLED_PATHS = (Path.DEDICATED, Path.BARE)
_TICK = timedelta(milliseconds=TICK_MS)
_PATIENCE = timedelta(milliseconds=PATIENCE_MS)
UNBILLED_MS = GpuInterval.proven_ms - GpuInterval.billed_ms


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
    by_id = {_uuid(proof.uid): proof for proof in proofs if proof.path in BILLED_PATHS}
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
        _go_on(interval, by_id[interval.id], now)
    session.flush()
    return len(by_id)


def charge(session: Session, now: datetime, limit: int = 100) -> int:
    """Charge at most `limit` intervals that are due; return how many were.

    Due is a whole minute, or whatever is left of a life that has ended or fallen silent. What only
    money held for requests would cover waits a while: most of it comes back when they end. Several
    processes may charge at once: each claims intervals of its own.
    """
    cost_p = cast(GpuInterval.rate_p_per_hour, Numeric) * UNBILLED_MS / MS_PER_HOUR
    due = session.scalars(
        select(GpuInterval)
        .join(Account, Account.tenant_id == GpuInterval.tenant_id)
        .where(
            GpuInterval.billed_ms < GpuInterval.proven_ms,
            or_(
                UNBILLED_MS >= TICK_MS,
                GpuInterval.ended_at.is_not(None),
                GpuInterval.proven_until < now - _TICK,
            ),
            or_(
                Account.held_p == 0,
                Account.balance_p - Account.held_p > cost_p,
                UNBILLED_MS >= PATIENCE_MS,
                GpuInterval.proven_until < now - _PATIENCE,
            ),
        )
        .order_by(GpuInterval.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=GpuInterval)
    ).all()
    return _charge(session, due, now) if due else 0


def _begin(session: Session, uid: uuid.UUID, proof: Lease, now: datetime) -> None:
    """Add an interval with nothing proven yet, unless it is there."""
    tenant_id = _uuid(proof.tenant_id)
    if tenant_id is None or session.get(Tenant, tenant_id) is None:
        _tell("unknown_tenant", proof.replica, deployment=proof.deployment)
        return
    since_ms, _ = _bounds(proof, now)
    deployment = rows.by_key(session, proof.deployment)
    if deployment is not None and deployment.managed == "row":
        # Whatever a proof says, nothing served before it was ordered.
        since_ms = max(since_ms, _ms(deployment.created_at))
    started_at = _moment(since_ms)
    rate_p = gpu.rate_p_per_hour(
        session, configuration=proof.configuration, spot=proof.spot, at=started_at
    )
    if rate_p is None:
        # Nobody is billed at a rate that was not published when the time began.
        _tell("no_price", proof.replica, configuration=proof.configuration)
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
            rate_p_per_hour=rate_p or 0,
            started_at=started_at,
            proven_until=started_at,
            proven_ms=0,
            billed_ms=0,
            billed_p=0,
            waived_p=0,
        )
        .on_conflict_do_nothing()
    )


def _go_on(interval: GpuInterval, proof: Lease, now: datetime) -> None:
    since_ms, until_ms = _bounds(proof, now)
    before = Life(interval.proven_ms, _ms(interval.proven_until))
    life = extended(before, since_ms, until_ms)
    if life != before:
        interval.proven_ms, interval.proven_until = life.proven_ms, _moment(life.until_ms)
        interval.ended_at = None
    if proof.ended and interval.ended_at is None:
        interval.ended_at = interval.proven_until


def _charge(session: Session, due: Sequence[GpuInterval], now: datetime) -> int:
    accounts = funds.lock(session, tenant_ids={it.tenant_id for it in due}, platform=["revenue"])
    left_p = {tenant_id: account.available_p for tenant_id, account in accounts.by_tenant.items()}
    postings, charged = [], 0
    for interval in due:
        decided = tick(
            interval.rate_p_per_hour,
            billed_ms=interval.billed_ms,
            proven_ms=interval.proven_ms,
            available_p=left_p[interval.tenant_id],
        )
        held_p = accounts.by_tenant[interval.tenant_id].held_p
        if decided.waived_p and held_p and not _is_overdue(interval, now):
            continue
        charged += 1
        left_p[interval.tenant_id] -= decided.charge_p
        if decided.charge_p:
            postings.append(_posting(interval, decided, accounts))
        interval.billed_ms = decided.to_ms
        interval.billed_p += decided.charge_p
        interval.waived_p += decided.waived_p
        metrics.GPU_TIME_PICODOLLARS.inc(decided.charge_p)
        if decided.waived_p:
            _tell("insufficient_balance", interval.replica, waived_p=decided.waived_p)
    ledger.post(session, postings)
    session.flush()
    return charged


def _is_overdue(interval: GpuInterval, now: datetime) -> bool:
    unbilled_ms = interval.proven_ms - interval.billed_ms
    return unbilled_ms >= PATIENCE_MS or interval.proven_until < now - _PATIENCE


def _posting(interval: GpuInterval, decided: Tick, accounts: LockedFunds) -> Posting:
    kind = gpu.kind_of(spot=interval.spot).replace("_", "-")
    return Posting(
        kind="gpu_time",
        tenant_id=interval.tenant_id,
        entries=[
            Entry(accounts.by_tenant[interval.tenant_id], -decided.charge_p),
            Entry(accounts.by_kind["revenue"], decided.charge_p),
        ],
        reason=f"{interval.configuration} {kind} ({interval.replica})",
        author="metering",
        tick=GpuTick(interval.id, decided.from_ms, decided.to_ms, interval.rate_p_per_hour),
    )


def _bounds(proof: Lease, now: datetime) -> tuple[int, int]:
    """Return from when until when a proof proves, in ms; a clock that is ahead proves no future."""
    return int(proof.alive_since * 1000), min(int(proof.published_at * 1000), _ms(now))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _tell(reason: str, replica: str, **details: object) -> None:
    metrics.GPU_TIME_DISCREPANCIES.labels(reason).inc()
    _log.error("gpu_time_not_billed", extra={"reason": reason, "replica": replica, **details})
