"""What of intervals is due: to be charged, to hold more or less. Called by `charges`.

The query and what is decided of a locked row say the same.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, cast

from sqlalchemy import ColumnElement, Numeric, Select, and_, func, not_, or_, select
from sqlalchemy import cast as as_type

from controlplane.accounts.models import Account
from controlplane.billing.gpu.lives import Interval
from controlplane.billing.gpu.ticks import PATIENCE_MS, TICK_MS, ahead_p
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.pricing.rating import MS_PER_HOUR

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


def select_due(meter: Meter, now: datetime, ahead_ms: int) -> Select[GpuInterval, bool]:
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


def lives_on(interval: Interval, now: datetime) -> bool:
    """Whether more of it is to be expected."""
    return interval.ended_at is None and interval.proven_until > now - _RECENT


def is_overdue(interval: Interval, meter: Meter, now: datetime) -> bool:
    """Whether its time has waited long enough for money that is held for something else."""
    unbilled_ms = interval.proven_ms - interval.billed_ms
    silent = interval.proven_until < now - timedelta(milliseconds=meter.patience_ms)
    return unbilled_ms >= meter.patience_ms or silent


def wanted_p(interval: Interval, hold_ms: int, now: datetime) -> int:
    """Return what an interval is to hold: time ahead while it lives, what it has until its last
    tick is charged, then nothing."""
    if lives_on(interval, now):
        return ahead_p(interval.rate_p_per_hour, hold_ms)
    return interval.held_p if interval.billed_ms < interval.proven_ms else 0
