"""From one status to another: phases, how long they took, and how long the next start waits."""

import math

from controlplane.crd.base import seconds, timestamp
from controlplane.crd.replica import Phase, ReplicaStatus, Stage

PENDING_SECONDS = 300.0  # from a reservation to pods on nodes
MAX_STAGES = 24


def moved(status: ReplicaStatus, phase: Phase, now: float, **changes: object) -> ReplicaStatus:
    """Return a status in another phase, with the time that the last one took."""
    if phase == status.phase:
        return status.model_copy(update=changes)
    stages = list(status.stages)
    if status.phase_since is not None:
        taken = max(0.0, round(now - seconds(status.phase_since), 1))
        stages.append(Stage(phase=status.phase, seconds=taken))
    fixed = {"phase": phase, "phase_since": timestamp(now), "stages": stages[-MAX_STAGES:]}
    return status.model_copy(update={**fixed, **changes})


def since(status: ReplicaStatus) -> float:
    """Return when the phase began, seconds since 1970 UTC; 0 before the first was written."""
    return 0.0 if status.phase_since is None else seconds(status.phase_since)


def backoff_seconds(attempt: int) -> float:
    """Return how long the start number `attempt` waits: 0, 5, 10, 20, ... at most 300 s."""
    return 0.0 if attempt <= 1 else min(300.0, 5.0 * 2 ** (attempt - 2))


def reserved(status: ReplicaStatus, now: float, **changes: object) -> ReplicaStatus:
    """Return a status whose pods are to be made, once its backoff is over."""
    attempts = status.attempts + 1
    until = timestamp(math.ceil(now + backoff_seconds(attempts) + PENDING_SECONDS))
    return moved(
        status, Phase.RESERVED, now, attempts=attempts, reserved_until=until, url="", **changes
    )
