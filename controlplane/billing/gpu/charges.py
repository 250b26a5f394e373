"""Turns what intervals have proven into charges, and holds the money of what comes next.

Called by `jobs`, of replicas and of volumes. A charge, its ledger rows, the interval's new figures
and its new hold commit together, so a crash anywhere changes no sum. Time that the account does not
cover is waived and told to the operator; `stops` ends what costs it.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from sqlalchemy import ColumnElement, Numeric, Select, and_, func, not_, or_, select
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.accounts import budgets, funds, ledger
from controlplane.accounts.funds import Funds, LockedFunds
from controlplane.accounts.ledger import Entry, GpuTick, Posting
from controlplane.accounts.models import Account
from controlplane.billing.commitments import places
from controlplane.billing.gpu import lives
from controlplane.billing.gpu.ticks import PATIENCE_MS, TICK_MS, Tick, ahead_p, tick
from controlplane.deployments.commitments import Commitment
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.pricing import gpu
from controlplane.pricing.rating import MS_PER_HOUR

Interval: TypeAlias = GpuInterval | VolumeInterval

# What was proven this recently may go on.
_RECENT: Final = timedelta(milliseconds=PATIENCE_MS)


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

    def hold_ms(self, ahead_ms: int) -> int:
        """How much of a life holds its money, where a replica's is `ahead_ms`."""
        return self.tick_ms + ahead_ms - TICK_MS


GPU_TIME: Final = Meter("gpu_time", GpuInterval, TICK_MS)
# A volume costs cents a day: a line an hour explains it well enough.
STORAGE: Final = Meter("storage", VolumeInterval, MS_PER_HOUR)


def charge(
    session: Session, meter: Meter, now: datetime, *, ahead_ms: int, limit: int = 100
) -> int:
    """Charge and hold for at most `limit` intervals that are due; return how many changed.

    Due to be charged is a whole tick, or whatever is left of a life that has ended or fallen
    silent. What only money held for something else would cover waits a while: most of it comes back
    when requests end. What lives holds the money of its next `ahead_ms` from its first round on;
    what is charged comes out of that, and it is filled up again from what the account has. Several
    processes may charge at once: each claims intervals of its own.
    """
    found = session.execute(_due(meter, now, ahead_ms).limit(limit)).all()
    due = [_Due(interval, is_charged) for interval, is_charged in found]
    return _charge(session, meter, due, now, ahead_ms) if due else 0


def _due(meter: Meter, now: datetime, ahead_ms: int) -> Select[GpuInterval, bool]:
    """Select what is due, locked, and whether it is to be charged."""
    # Both tables have the same columns; the first stands for either.
    table = cast(type[GpuInterval], meter.interval)
    unbilled_ms = table.proven_ms - table.billed_ms
    rate_p = as_type(table.rate_p_per_hour, Numeric)
    free_p = Account.balance_p + Account.credit_limit_p - Account.held_p
    is_live = _is_live(table, now)
    # The same as `ticks.ahead_p`.
    wanted_p = func.div(rate_p * meter.hold_ms(ahead_ms) + MS_PER_HOUR - 1, MS_PER_HOUR)
    to_charge = and_(
        table.billed_ms < table.proven_ms,
        or_(
            unbilled_ms >= meter.tick_ms,
            table.ended_at.is_not(None),
            table.proven_until < now - timedelta(milliseconds=meter.tick_ms),
        ),
        or_(
            Account.held_p == table.held_p,
            free_p + table.held_p > rate_p * unbilled_ms / MS_PER_HOUR,
            unbilled_ms >= meter.patience_ms,
            table.proven_until < now - timedelta(milliseconds=meter.patience_ms),
        ),
    )
    to_hold = and_(is_live, or_(table.held_p > wanted_p, and_(table.held_p < wanted_p, free_p > 0)))
    to_free = and_(table.held_p > 0, table.billed_ms == table.proven_ms, not_(is_live))
    return (
        select(table, to_charge.label("is_charged"))
        .join(Account, Account.tenant_id == table.tenant_id)
        .where(or_(to_charge, to_hold, to_free))
        .order_by(table.id)
        .with_for_update(skip_locked=True, of=table)
    )


def _is_live(table: type[GpuInterval], now: datetime) -> ColumnElement[bool]:
    return and_(table.ended_at.is_(None), table.proven_until > now - _RECENT)


class _Due(NamedTuple):
    """A locked interval; whether it is to be charged, or only its hold is not what it should be."""

    interval: Interval
    is_charged: bool


@dataclass(slots=True)
class _Purse:
    """A tenant's money in a round, p$.

    Attributes:
        account: the locked sums.
        free_p: what the intervals of the round may spend and hold, what they hold already too.
        elsewhere_p: held for requests, and for intervals that are not in the round.
        spent_p: charged in this round.
    """

    account: Funds
    free_p: int
    elsewhere_p: int
    spent_p: int = 0


def _charge(
    session: Session, meter: Meter, due: Sequence[_Due], now: datetime, ahead_ms: int
) -> int:
    """Charge first and hold then: what is proven is paid before anything is set aside."""
    tenant_ids = {it.interval.tenant_id for it in due}
    accounts = funds.lock(session, tenant_ids=tenant_ids, platform=["revenue"])
    reserved = _places(session, due, now)
    purses = _purses(accounts, due)
    postings, changed = [], set()
    for interval in (it.interval for it in due if it.is_charged):
        purse = purses[interval.tenant_id]
        decided = _next_tick(interval, purse.free_p)
        if decided.waived_p and purse.elsewhere_p and not _is_overdue(interval, meter, now):
            continue
        changed.add(interval.id)
        purse.free_p -= decided.charge_p
        purse.spent_p += decided.charge_p
        if decided.charge_p:
            postings.append(_posting(interval, meter, decided, accounts))
        _take_down(interval, decided, reserved)
    changed |= _hold(session, meter, due, purses, now, ahead_ms)
    ledger.post(session, postings)
    for tenant_id, purse in sorted(purses.items()):
        if purse.spent_p:
            budgets.spend(session, tenant_id=tenant_id, amount_p=purse.spent_p)
    session.flush()
    return len(changed)


def _places(session: Session, due: Sequence[_Due], now: datetime) -> dict[uuid.UUID, Commitment]:
    """Give what is charged or lives on its place in a reservation; return those by id."""
    lives_on = [
        it.interval
        for it in due
        if isinstance(it.interval, GpuInterval) and (it.is_charged or _lives_on(it.interval, now))
    ]
    return places.assign(session, lives_on, now)


def _purses(accounts: LockedFunds, due: Sequence[_Due]) -> dict[uuid.UUID, _Purse]:
    held_p: Counter[uuid.UUID] = Counter()
    for it in due:
        held_p[it.interval.tenant_id] += it.interval.held_p
    return {
        tenant_id: _Purse(
            account,
            free_p=account.available_p + held_p[tenant_id],
            elsewhere_p=account.held_p - held_p[tenant_id],
        )
        for tenant_id, account in accounts.by_tenant.items()
    }


def _hold(
    session: Session,
    meter: Meter,
    due: Sequence[_Due],
    purses: dict[uuid.UUID, _Purse],
    now: datetime,
    ahead_ms: int,
) -> set[uuid.UUID]:
    """Hold for what lives what is left for it; return the intervals whose hold is another now.

    What a charge is going to take is free when this is written, so it is never spent twice.
    """
    changed = set()
    held_p = {tenant_id: purse.elsewhere_p for tenant_id, purse in purses.items()}
    for interval, _ in due:
        purse = purses[interval.tenant_id]
        wanted_p = min(_wanted_p(interval, meter.hold_ms(ahead_ms), now), purse.free_p)
        purse.free_p -= wanted_p
        held_p[interval.tenant_id] += wanted_p
        if wanted_p != interval.held_p:
            interval.held_p = wanted_p
            changed.add(interval.id)
    moved = [it for it, purse in purses.items() if purse.account.held_p != held_p[it]]
    for tenant_id in moved:
        purses[tenant_id].account.held_p = held_p[tenant_id]
    if moved:
        funds.write(session, [purses[tenant_id].account for tenant_id in moved])
    return changed


def _wanted_p(interval: Interval, hold_ms: int, now: datetime) -> int:
    """Return what an interval is to hold: time ahead while it lives, what it has until its last
    tick is charged, then nothing."""
    if _lives_on(interval, now):
        return ahead_p(interval.rate_p_per_hour, hold_ms)
    return interval.held_p if interval.billed_ms < interval.proven_ms else 0


def _lives_on(interval: Interval, now: datetime) -> bool:
    return interval.ended_at is None and interval.proven_until > now - _RECENT


def _take_down(interval: Interval, decided: Tick, reserved: dict[uuid.UUID, Commitment]) -> None:
    """Write a tick down in its interval, and in the reservation that it has a place in."""
    interval.billed_ms = decided.to_ms
    interval.billed_p += decided.charge_p
    interval.waived_p += decided.waived_p
    if isinstance(interval, GpuInterval) and interval.commitment_id is not None:
        reserved[interval.commitment_id].used_p += decided.charge_p + decided.waived_p
    metrics.GPU_TIME_PICODOLLARS.inc(decided.charge_p)
    if decided.waived_p:
        lives.tell("insufficient_balance", interval.deployment, waived_p=decided.waived_p)


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
