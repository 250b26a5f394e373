"""How far funds have sunk, and what is told of it. Pure; called by `watch`.

A tenant is warned once at each level of a descent: a day of what runs is left, an hour, nothing.
What runs may come and go meanwhile; only money that comes in lifts the level, so that a
deployment that scales up and down near a limit does not warn every time.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

Level = Literal["enough", "day", "hour", "empty"]
_DEPTH: Final[dict[Level, int]] = {"enough": 0, "day": 1, "hour": 2, "empty": 3}
DAY_HOURS: Final = 24
# Between the announcement that volumes go, and their end.
NOTICE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Funds:
    """A tenant's money and what uses it up; p$, and p$ per hour.

    Attributes:
        funds_p: what may be spent, what is held for requests too: it may come back.
        owed_p: proven time that is not charged yet.
        burn_p_per_hour: of everything that is live, volumes too.
        has_volumes: whether stopping everything leaves volumes.
    """

    funds_p: int
    owed_p: int
    burn_p_per_hour: int
    has_volumes: bool

    @property
    def level(self) -> Level:
        """The level by the present burn; without any, enough."""
        left_p, burn_p = self.funds_p - self.owed_p, self.burn_p_per_hour
        if burn_p == 0 or left_p >= DAY_HOURS * burn_p:
            return "enough"
        if left_p * 60 < burn_p:
            return "empty"
        return "hour" if left_p < burn_p else "day"


@dataclass(frozen=True, slots=True)
class State:
    """What was told so far.

    Attributes:
        level: the deepest since money came in.
        seen_p: `funds_p` at the last look.
        refilled: money came in since the level was reached.
        empty_since: the end of the money, while nothing has come in.
        expiry_told_at: when the end of the volumes was announced.
    """

    level: Level
    seen_p: int
    refilled: bool = False
    empty_since: datetime | None = None
    expiry_told_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The state after a look; what to tell, and whether the volumes are to go now."""

    state: State
    warn: Level | None = None
    announce_expiry: bool = False
    expire: bool = False


def look(state: State, funds: Funds, now: datetime, *, keep: timedelta) -> Step:
    """Return what follows from a look at a tenant's funds.

    Args:
        state: after the look before.
        funds: what is there now.
        now: the moment.
        keep: for how long volumes outlive the money; at least `NOTICE`.
    """
    level = funds.level
    refilled = state.refilled or funds.funds_p > state.seen_p
    if _DEPTH[level] > _DEPTH[state.level]:
        empty_since = now if level == "empty" else None
        return Step(State(level, funds.funds_p, empty_since=empty_since), warn=level)
    if _DEPTH[level] < _DEPTH[state.level] and refilled:
        return Step(State(level, funds.funds_p))
    seen = replace(state, seen_p=funds.funds_p, refilled=refilled)
    return _expiry(seen, funds, now, keep) if state.level == "empty" else Step(seen)


def _expiry(state: State, funds: Funds, now: datetime, keep: timedelta) -> Step:
    """Announce the end of the volumes a day before it, however late anybody looks."""
    assert state.empty_since is not None
    if not funds.has_volumes:
        return Step(state)
    if state.expiry_told_at is None:
        if now < state.empty_since + keep - NOTICE:
            return Step(state)
        return Step(replace(state, expiry_told_at=now), announce_expiry=True)
    expires_at = max(state.empty_since + keep, state.expiry_told_at + NOTICE)
    return Step(state, expire=now >= expires_at)
