"""One round of metering: what was proven is written down, then money moves. Called by `jobs`.

Every step is a transaction of its own, and each may be done again or left out: whatever a crash
skips, the next round does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from sqlalchemy.orm import Session

from controlplane.billing.commitments import dues
from controlplane.billing.gpu import credits, intervals, stops, volumes, watch
from controlplane.store import Store

# Does a step in a transaction; returns how much it dealt with, 0 while the database is down.
Tick: TypeAlias = Callable[[Callable[[Session], int]], int]


@dataclass(frozen=True, slots=True)
class Policy:
    """What this installation decides.

    Attributes:
        spot_credit_minutes: interrupted spot time of so many minutes at most costs nothing.
        hold_seconds: what runs holds the money of so much time ahead.
        keep_volumes_hours: how long volumes outlive the money; at least 24, they are announced.
    """

    spot_credit_minutes: int
    hold_seconds: int
    keep_volumes_hours: int


def write_down(store: Store, tick: Tick) -> None:
    """Write down what the operator proved, then take out of the store what is over.

    Raises:
        redis.RedisError: the store is down.
    """
    lives = intervals.proofs(store)
    if tick(lambda session: intervals.extend(session, lives, datetime.now(UTC))):
        intervals.acknowledge(store, lives)
    disks = volumes.proofs(store)
    if tick(lambda session: volumes.extend(session, disks, datetime.now(UTC))):
        volumes.acknowledge(store, disks)


def charge(tick: Tick, policy: Policy) -> None:
    """Charge and hold, give back what the policy says, stop what cannot be paid on, and warn."""
    ahead_ms = policy.hold_seconds * 1000
    while tick(lambda session: intervals.charge(session, datetime.now(UTC), ahead_ms=ahead_ms)):
        pass
    while tick(lambda session: volumes.charge(session, datetime.now(UTC), ahead_ms=ahead_ms)):
        pass
    while tick(lambda session: dues.fall_due(session, datetime.now(UTC))):
        pass
    while tick(dues.collect):
        pass
    within_ms = policy.spot_credit_minutes * 60_000
    while tick(lambda s: credits.credit_interrupted(s, datetime.now(UTC), within_ms=within_ms)):
        pass
    tick(lambda session: stops.stop_broke(session, datetime.now(UTC)))
    tick(lambda session: stops.stop_over_budget(session, datetime.now(UTC)))
    keep = timedelta(hours=policy.keep_volumes_hours)
    tick(lambda session: watch.watch(session, datetime.now(UTC), keep=keep))
