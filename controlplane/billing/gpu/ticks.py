"""How much of a replica's life is proven, and what of it falls due. Pure.

Called by `lives` and `charges`. Lives are told in proofs: "alive without a break from then until
then". Proofs may come late, twice or not at all; a millisecond counts once, and only if a proof
covers it.
"""

from dataclasses import dataclass

from controlplane.pricing.rating import MS_PER_HOUR, gpu_time_p

TICK_MS = 60_000
# For how long time waits to be paid from money that is held for requests, and may come back.
PATIENCE_MS = 3 * TICK_MS
# A replica holds the money of so much of its life ahead, where nobody says otherwise.
HOLD_MS = PATIENCE_MS
# Keeps one tick inside one ledger entry, however long nobody billed.
LONGEST_TICK_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Life:
    """What is proven so far: so many ms, the last of them at `until_ms` since 1970."""

    proven_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A stretch of proven life and its price: charge_p + waived_p = what it costs."""

    from_ms: int
    to_ms: int
    charge_p: int
    waived_p: int


def extended(life: Life, alive_since_ms: int, until_ms: int) -> Life:
    """Return `life` with another proof; what lies between two proofs' breaks is not counted."""
    new_ms = until_ms - max(alive_since_ms, life.until_ms)
    if new_ms <= 0:
        return life
    return Life(life.proven_ms + new_ms, until_ms)


def tick(rate_p_per_hour: int, *, billed_ms: int, proven_ms: int, available_p: int) -> Tick:
    """Return the next tick: what the account covers is charged, the rest is waived.

    Args:
        rate_p_per_hour: pinned when the life began.
        billed_ms: where the last tick ended; below `proven_ms`.
        proven_ms: the life so far.
        available_p: what the account may spend.
    """
    assert 0 <= billed_ms < proven_ms
    to_ms = min(proven_ms, billed_ms + LONGEST_TICK_MS)
    due_p = gpu_time_p(rate_p_per_hour, to_ms) - gpu_time_p(rate_p_per_hour, billed_ms)
    charge_p = min(due_p, max(0, available_p))
    return Tick(billed_ms, to_ms, charge_p, due_p - charge_p)


def ahead_p(rate_p_per_hour: int, ahead_ms: int) -> int:
    """Return the most that any `ahead_ms` of a life cost, in p$: ceil(R x t / 3.6M)."""
    return -(-rate_p_per_hour * ahead_ms // MS_PER_HOUR)
