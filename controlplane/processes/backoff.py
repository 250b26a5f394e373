"""When a child that died is started again: pure, for whoever keeps it alive."""

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 30.0
HEALTHY_SECONDS = 60.0


def restart_delay_seconds(deaths: int) -> float:
    """Return how long to wait after the n-th death in a row, n from 1: doubling, bounded."""
    assert deaths >= 1
    return min(FIRST_SECONDS * 2.0 ** min(deaths - 1, 30), LONGEST_SECONDS)


def deaths_in_a_row(previous: int, lived_seconds: float) -> int:
    """Return the count including a death just seen; a long life forgives the earlier ones."""
    return 1 if lived_seconds >= HEALTHY_SECONDS else previous + 1
