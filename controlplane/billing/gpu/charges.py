"""Turns what intervals have proven into charges, and holds the money of what comes next.

Called by `jobs`, of replicas and of volumes. A charge, its ledger rows, the interval's new figures
and its new hold commit together, so a crash anywhere changes no sum. Time that the account does not
cover is waived and told to the operator; `stops` ends what costs it.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from controlplane import metrics
from controlplane.accounts import budgets, funds, ledger
from controlplane.accounts.funds import Funds, LockedFunds
from controlplane.accounts.ledger import Entry, GpuTick, Posting
from controlplane.billing.commitments import places
from controlplane.billing.gpu import lives
from controlplane.billing.gpu.due import Meter, is_overdue, lives_on, select_due, wanted_p
from controlplane.billing.gpu.lives import Interval
from controlplane.billing.gpu.ticks import Tick, tick
from controlplane.deployments.commitments import Commitment
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.pricing import gpu


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
    found = session.execute(select_due(meter, now, ahead_ms).limit(limit)).all()
    due = [_Due(interval, is_charged) for interval, is_charged in found]
    with session.no_autoflush:  # intervals are written once, at the end
        return _charge(session, meter, due, now, ahead_ms) if due else 0


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
        if decided.waived_p and purse.elsewhere_p and not is_overdue(interval, meter, now):
            continue
        changed.add(interval.id)
        purse.free_p -= decided.charge_p
        purse.spent_p += decided.charge_p
        if decided.charge_p:
            postings.append(_posting(interval, meter, decided, accounts))
        _take_down(interval, decided, reserved)
    changed |= _hold(session, meter, due, purses, now, ahead_ms)
    _write(session, meter, [it.interval for it in due if it.interval.id in changed])
    ledger.post(session, postings)
    for tenant_id, purse in sorted(purses.items()):
        if purse.spent_p:
            budgets.spend(session, tenant_id=tenant_id, amount_p=purse.spent_p)
    return len(changed)


def _write(session: Session, meter: Meter, changed: Sequence[Interval]) -> None:
    """Write intervals down, all by one statement; one by one they would differ in their columns."""
    columns = ("id", "billed_ms", "billed_p", "waived_p", "held_p")
    rows = [{name: getattr(interval, name) for name in columns} for interval in changed]
    for interval, row in zip(changed, rows, strict=True):
        for name, value in row.items():
            set_committed_value(interval, name, value)
    if rows:
        session.execute(update(meter.interval), rows)
    session.flush()


def _places(session: Session, due: Sequence[_Due], now: datetime) -> dict[uuid.UUID, Commitment]:
    """Give what is charged or lives on its place in a reservation; return those by id."""
    placed = [
        it.interval
        for it in due
        if isinstance(it.interval, GpuInterval) and (it.is_charged or lives_on(it.interval, now))
    ]
    reserved = places.assign(session, placed, now)
    session.flush()  # rates change where the last tick ended, before the next one is written down
    return reserved


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
        new_p = min(wanted_p(interval, meter.hold_ms(ahead_ms), now), purse.free_p)
        purse.free_p -= new_p
        held_p[interval.tenant_id] += new_p
        if new_p != interval.held_p:
            interval.held_p = new_p
            changed.add(interval.id)
    moved = [it for it, purse in purses.items() if purse.account.held_p != held_p[it]]
    for tenant_id in moved:
        purses[tenant_id].account.held_p = held_p[tenant_id]
    if moved:
        funds.write(session, [purses[tenant_id].account for tenant_id in moved])
    return changed


def _take_down(interval: Interval, decided: Tick, reserved: dict[uuid.UUID, Commitment]) -> None:
    """Write a tick down in its interval, and in the reservation that it has a place in."""
    interval.billed_ms = decided.to_ms
    if isinstance(interval, GpuInterval) and interval.commitment_id is not None:
        reserved[interval.commitment_id].used_p += decided.charge_p + decided.waived_p
    if decided.charge_p:
        interval.billed_p += decided.charge_p
        metrics.GPU_TIME_PICODOLLARS.inc(decided.charge_p)
    if decided.waived_p:
        interval.waived_p += decided.waived_p
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
