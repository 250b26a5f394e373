"""Turns what intervals have proven into charges. Called by `jobs`, of replicas and of volumes.

A charge, its ledger rows and the interval's new figures commit together, so a crash anywhere
changes no sum. Time that the account does not cover is waived and told to the operator; `stops`
ends what costs it.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, cast

from sqlalchemy import Numeric, or_, select
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.accounts import budgets, funds, ledger
from controlplane.accounts.funds import LockedFunds
from controlplane.accounts.ledger import Entry, GpuTick, Posting
from controlplane.accounts.models import Account
from controlplane.billing.commitments import places
from controlplane.billing.gpu import lives
from controlplane.billing.gpu.ticks import PATIENCE_MS, TICK_MS, Tick, tick
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.pricing import gpu
from controlplane.pricing.rating import MS_PER_HOUR

Interval: TypeAlias = GpuInterval | VolumeInterval


@dataclass(frozen=True, slots=True)
class Meter:
    """What is charged, and how much of it at a time.

    Attributes:
        kind: of its ledger transactions.
        interval: its table.
        tick_ms: falls due when so much is proven.
    """

    kind: Literal["gpu_time", "storage"]
    interval: type[Interval]
    tick_ms: int

    @property
    def patience_ms(self) -> int:
        """For how long proven time waits for money that is held and may come back."""
        return self.tick_ms + PATIENCE_MS - TICK_MS


GPU_TIME: Final = Meter("gpu_time", GpuInterval, TICK_MS)
# A volume costs cents a day: a line an hour explains it well enough.
STORAGE: Final = Meter("storage", VolumeInterval, MS_PER_HOUR)


def charge(session: Session, meter: Meter, now: datetime, limit: int = 100) -> int:
    """Charge at most `limit` intervals that are due; return how many were.

    Due is a whole tick, or whatever is left of a life that has ended or fallen silent. What only
    money held for requests would cover waits a while: most of it comes back when they end. Several
    processes may charge at once: each claims intervals of its own.
    """
    # Both tables have the same columns; the first stands for either.
    table = cast(type[GpuInterval], meter.interval)
    unbilled_ms = table.proven_ms - table.billed_ms
    cost_p = as_type(table.rate_p_per_hour, Numeric) * unbilled_ms / MS_PER_HOUR
    due = session.scalars(
        select(table)
        .join(Account, Account.tenant_id == table.tenant_id)
        .where(
            table.billed_ms < table.proven_ms,
            or_(
                unbilled_ms >= meter.tick_ms,
                table.ended_at.is_not(None),
                table.proven_until < now - timedelta(milliseconds=meter.tick_ms),
            ),
            or_(
                Account.held_p == 0,
                Account.balance_p + Account.credit_limit_p - Account.held_p > cost_p,
                unbilled_ms >= meter.patience_ms,
                table.proven_until < now - timedelta(milliseconds=meter.patience_ms),
            ),
        )
        .order_by(table.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=table)
    ).all()
    return _charge(session, meter, due, now) if due else 0


def _charge(session: Session, meter: Meter, due: Sequence[Interval], now: datetime) -> int:
    accounts = funds.lock(session, tenant_ids={it.tenant_id for it in due}, platform=["revenue"])
    reserved = places.assign(session, [it for it in due if isinstance(it, GpuInterval)], now)
    left_p = {tenant_id: account.available_p for tenant_id, account in accounts.by_tenant.items()}
    postings, charged = [], 0
    charged_p: Counter[uuid.UUID] = Counter()
    for interval in due:
        decided = _next_tick(interval, left_p[interval.tenant_id])
        held_p = accounts.by_tenant[interval.tenant_id].held_p
        if decided.waived_p and held_p and not _is_overdue(interval, meter, now):
            continue
        charged += 1
        left_p[interval.tenant_id] -= decided.charge_p
        if decided.charge_p:
            postings.append(_posting(interval, meter, decided, accounts))
            charged_p[interval.tenant_id] += decided.charge_p
        interval.billed_ms = decided.to_ms
        interval.billed_p += decided.charge_p
        interval.waived_p += decided.waived_p
        if isinstance(interval, GpuInterval) and interval.commitment_id is not None:
            reserved[interval.commitment_id].used_p += decided.charge_p + decided.waived_p
        metrics.GPU_TIME_PICODOLLARS.inc(decided.charge_p)
        if decided.waived_p:
            lives.tell("insufficient_balance", interval.deployment, waived_p=decided.waived_p)
    ledger.post(session, postings)
    for tenant_id, amount_p in sorted(charged_p.items()):
        budgets.spend(session, tenant_id=tenant_id, amount_p=amount_p)
    session.flush()
    return charged


def _next_tick(interval: Interval, available_p: int) -> Tick:
    """Return the next tick of a life; its rate is reckoned from where it began to hold."""
    from_ms = interval.rated_from_ms
    decided = tick(
        interval.rate_p_per_hour,
        billed_ms=interval.billed_ms - from_ms,
        proven_ms=interval.proven_ms - from_ms,
        available_p=available_p,
    )
    return replace(decided, from_ms=decided.from_ms + from_ms, to_ms=decided.to_ms + from_ms)


def _is_overdue(interval: Interval, meter: Meter, now: datetime) -> bool:
    unbilled_ms = interval.proven_ms - interval.billed_ms
    silent = interval.proven_until < now - timedelta(milliseconds=meter.patience_ms)
    return unbilled_ms >= meter.patience_ms or silent


def _posting(interval: Interval, meter: Meter, decided: Tick, accounts: LockedFunds) -> Posting:
    return Posting(
        kind=meter.kind,
        tenant_id=interval.tenant_id,
        entries=[
            Entry(accounts.by_tenant[interval.tenant_id], -decided.charge_p),
            Entry(accounts.by_kind["revenue"], decided.charge_p),
        ],
        reason=_words(interval),
        author="metering",
        tick=GpuTick(interval.id, decided.from_ms, decided.to_ms, interval.rate_p_per_hour),
    )


def _words(interval: Interval) -> str:
    if isinstance(interval, VolumeInterval):
        return f"{interval.size_gib} GiB of volume ({interval.claim})"
    kind = gpu.kind_of(spot=interval.spot).replace("_", "-")
    return f"{interval.configuration} {kind} ({interval.replica})"
