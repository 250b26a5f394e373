"""One round of metering: what was proven is written down, then money moves. Called by `jobs`.

Every step is a transaction of its own, and each may be done again or left out: whatever a crash
skips, the next round does.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from sqlalchemy.orm import Session

from controlplane.billing.gpu import intervals, stops, volumes
from controlplane.store import Store

# Does a step in a transaction; returns how much it dealt with, 0 while the database is down.
Tick: TypeAlias = Callable[[Callable[[Session], int]], int]


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


def charge(tick: Tick) -> None:
    """Charge what is due and stop what cannot be paid on."""
    while tick(lambda session: intervals.charge(session, datetime.now(UTC))):
        pass
    while tick(lambda session: volumes.charge(session, datetime.now(UTC))):
        pass
    tick(lambda session: stops.stop_broke(session, datetime.now(UTC)))
