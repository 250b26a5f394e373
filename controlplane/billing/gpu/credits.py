"""Gives back what a spot replica cost whose machine was taken away too early. Called by `jobs`.

The policy: a replica that the provider interrupts, after a notice, within its first proven hour has
cost nothing . Each of its charges is taken back by a credit note of its
own, in the transaction that marks the interval as judged, so it happens once.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.accounts import corrections, funds
from controlplane.accounts.models import LedgerTransaction
from controlplane.billing.gpu.ticks import TICK_MS
from controlplane.deployments.models import GpuInterval

AUTHOR = "metering"
# After an end nothing more is proven; a proof that is still under way gets so long.
_SETTLED = timedelta(milliseconds=TICK_MS)


def credit_interrupted(session: Session, now: datetime, *, within_ms: int, limit: int = 100) -> int:
    """Judge at most `limit` interrupted lives that are over and paid; return how many.

    Args:
        session: the transaction.
        now: the moment.
        within_ms: a life this long at most is given back; 0: none is.
        limit: the most lives.
    """
    judged = session.scalars(
        select(GpuInterval)
        .where(
            GpuInterval.interrupted,
            GpuInterval.spot,
            GpuInterval.credited_p.is_(None),
            GpuInterval.ended_at < now - _SETTLED,
            GpuInterval.billed_ms == GpuInterval.proven_ms,
        )
        .order_by(GpuInterval.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    if judged:
        # All at once and in order, so that no two processes wait for each other.
        funds.lock(session, tenant_ids={it.tenant_id for it in judged}, platform=["revenue"])
    for interval in judged:
        early = interval.proven_ms <= within_ms
        interval.credited_p = _give_back(session, interval) if early else 0
    session.flush()
    return len(judged)


def _give_back(session: Session, interval: GpuInterval) -> int:
    """Take back the interval's charges, what of them is not back yet; return how much, in p$."""
    ticks = session.scalars(
        select(LedgerTransaction.id)
        .where(LedgerTransaction.interval_id == interval.id)
        .order_by(LedgerTransaction.to_ms)
    ).all()
    credited_p = 0
    for tick_id in ticks:
        left_p = corrections.taken_by(
            session, tenant_id=interval.tenant_id, transaction_id=tick_id
        ).left_p
        if not left_p:
            continue
        corrections.give_back(
            session,
            kind="credit_note",
            tenant_id=interval.tenant_id,
            amount_p=left_p,
            reason=f"{interval.replica} was interrupted within its first hour",
            author=AUTHOR,
            corrects_id=tick_id,
        )
        credited_p += left_p
    return credited_p
