"""How long to wait after a failure: doubling, bounded, and never in step with others."""

import random

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 60.0


def delay_seconds(
    failures: int, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS
) -> float:
    """Return the wait after the n-th failure in a row, n from 1: half of it is chance."""
    assert failures >= 1
    whole = min(first * 2.0 ** min(failures - 1, 30), longest)
    return whole * random.uniform(0.5, 1.0)
