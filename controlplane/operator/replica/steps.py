"""A replica's life: from one phase to the next, as pure functions of what is seen.

```
Pending > Reserved > Scheduled > Fetching > Loading > Probing > Serving <> Degraded
any of these > Draining > Stopping > [Scrubbing >] Released | Failed | Quarantined
Stopping > Reserved: another try on the same GPUs
```

Stopping ends in Failed if a failure was noted, in Released if `drained_by` was, else in another
try. Both are written before the first pod is deleted, so that a restart forgets nothing.
"""

import math
from collections.abc import Callable, Mapping

from controlplane.crd.base import GROUP, seconds, timestamp
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Failure, Phase, ReplicaStatus, Stage
from controlplane.operator.health.table import Action
from controlplane.operator.replica import drain
from controlplane.operator.replica.ending import Ending, asked, ending, gpu_verdict
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.pods import address, node_of, restarts_itself, started_at

MAX_ATTEMPTS = 3  # sets of pods
IN_PLACE_RESTARTS = 3  # that the kubelet makes of one pod's containers before others are made
PENDING_SECONDS = 300.0  # from a reservation to pods on nodes
PROBE_SECONDS = 300.0  # from ready pods to a completed generation
DEGRADED_SECONDS = 120.0  # without an answer until the engine is started anew
STABLE_SECONDS = 600.0  # served for so long, earlier crashes are forgotten
SCRUB_SECONDS = 900.0
SETTLE_SECONDS = 5.0  # until what makes pods, once deleted, makes none any more
ENGINE_PORT = 8000
MAX_STAGES = 24
PROVEN_CLEAN_ANNOTATION = f"{GROUP}/proven-clean"  # a person vouches for quarantined GPUs

STARTING = (Phase.RESERVED, Phase.SCHEDULED, Phase.FETCHING, Phase.LOADING, Phase.PROBING)


def advance(observed: Observed, now: float) -> ReplicaStatus:
    """Return the status that is true now; it may be several phases further than the last one."""
    for _ in Phase:
        status = _STEPS[observed.status.phase](observed, now)
        if status.phase == observed.status.phase:
            return status
        observed = observed.at(status)
    raise AssertionError(f"phases go round in a circle, at {observed.status.phase}")


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


def _pending(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    if status.phase_since is None:
        status = status.model_copy(update={"phase_since": timestamp(now)})
    if ending(observed, now) is not None or observed.pods:
        return moved(status, Phase.STOPPING, now, drained_by=drain.UNSERVED)
    if not observed.offer:
        return status
    return _reserved(status, now, placements=list(observed.offer))


def _reserved(status: ReplicaStatus, now: float, **changes: object) -> ReplicaStatus:
    attempts = status.attempts + 1
    until = timestamp(math.ceil(now + backoff_seconds(attempts) + PENDING_SECONDS))
    return moved(
        status, Phase.RESERVED, now, attempts=attempts, reserved_until=until, url="", **changes
    )


def _starting(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    cause = ending(observed, now)
    if cause is not None:
        return _unserved(observed, cause, now)
    if status.phase is not Phase.RESERVED and observed.pods_missing:
        return _again(observed, Reason.ENGINE_FAILED, "a pod was deleted", now)
    if observed.refusal is not None:
        refused = observed.refusal
        return _failed(observed, refused.reason, refused.message, now, retryable=False)
    broken, progress = _broken(observed, now), observed.progress
    if broken is not None:
        return broken
    if observed.pods_missing or progress.phase is Phase.RESERVED:
        assert status.reserved_until is not None
        if now >= seconds(status.reserved_until):
            message = (
                f"its pods had no node after {PENDING_SECONDS:.0f} s {observed.refused}".strip()
            )
            return _failed(observed, Reason.PENDING_TOO_LONG, message, now)
        return moved(status, Phase.RESERVED, now)
    if progress.phase is Phase.PROBING:
        return _probing(observed, now)
    return moved(status, progress.phase, now, reserved_until=None)


def _broken(observed: Observed, now: float) -> ReplicaStatus | None:
    """Return what follows when its pods cannot get further; None: they can."""
    status, progress = observed.status, observed.progress
    if progress.reason is None:
        return None
    alone = len(status.placements) == 1
    crashed = progress.reason is Reason.ENGINE_FAILED and progress.retryable
    if crashed and alone and restarts_itself(observed.pods, IN_PLACE_RESTARTS):
        return moved(status, Phase.LOADING, now, reserved_until=None, url="")
    return _again(observed, progress.reason, progress.message, now, progress.retryable)


def _probing(observed: Observed, now: float) -> ReplicaStatus:
    status, engine = observed.status, observed.engine
    url = f"http://{address(observed.pods)}:{ENGINE_PORT}" if observed.workload.probed else ""
    status = moved(status, Phase.PROBING, now, reserved_until=None, url=url)
    start = started_at(observed.pods)
    if start is None:
        return status
    if not observed.workload.probed:
        return _now_serving(status, now, start)
    if engine is not None and engine.started_at == start and engine.healthy and engine.proven:
        return _now_serving(status, now, start, max_model_len=engine.max_model_len or 0)
    if now - since(status) >= PROBE_SECONDS:
        told = f": {engine.error}" if engine is not None and engine.error else ""
        message = f"no completed generation within {PROBE_SECONDS:.0f} s{told}"
        return _again(observed.at(status), Reason.ENGINE_FAILED, message, now)
    return status


def _now_serving(
    status: ReplicaStatus, now: float, start: float, **changes: object
) -> ReplicaStatus:
    first = status.serving_since or timestamp(now)
    started = timestamp(start)
    return moved(
        status, Phase.SERVING, now, serving_since=first, engine_started_at=started, **changes
    )


def _alive(observed: Observed, now: float) -> ReplicaStatus:
    """Serving and Degraded."""
    status, progress = observed.status, observed.progress
    cause = ending(observed, now)
    if cause is not None and cause.lost:
        return _failed(observed, cause.reason, cause.message, now)
    if cause is not None:
        until = drain.deadline(observed, cause, math.floor(now))
        return moved(status, Phase.DRAINING, now, drain_deadline=timestamp(math.ceil(until)))
    if observed.pods_missing:
        return _again(observed, Reason.ENGINE_FAILED, "a pod was deleted", now)
    broken = _broken(observed, now)
    if broken is not None:
        return broken
    if _must_restart(observed, now):
        return _again(observed, Reason.GPU_FAULT, "a GPU error ended its engine", now)
    if not same_process(observed):
        if len(status.placements) > 1:
            # One rank cannot join the others anew: they all start again.
            return _again(observed, Reason.ENGINE_FAILED, "a rank ended", now)
        # The engine was started anew in place: it has to prove itself again.
        return moved(status, progress.phase, now, url="")
    if _answers(observed):
        return moved(status, Phase.SERVING, now)
    if status.phase is Phase.DEGRADED and now - since(status) >= DEGRADED_SECONDS:
        message = f"no answer for {DEGRADED_SECONDS:.0f} s"
        return _again(observed, Reason.ENGINE_FAILED, message, now)
    return moved(status, Phase.DEGRADED, now)


def same_process(observed: Observed) -> bool:
    """Whether the process that was proven is the one that runs, by its node's own clock."""
    start = started_at(observed.pods)
    return start is not None and timestamp(start) == observed.status.engine_started_at


def _answers(observed: Observed) -> bool:
    """Whether the kubelet finds its pods ready and its engine was not seen unwell.

    Nothing heard from the engine is no answer either way: then the kubelet's word counts.
    """
    engine = observed.engine
    unwell = engine is not None and not engine.healthy
    return observed.progress.phase is Phase.PROBING and not unwell


def _must_restart(observed: Observed, now: float) -> bool:
    """Whether a GPU error certainly hit this engine: no other can have used its nodes' GPUs."""
    if not observed.workload.probed:
        return False  # a customer's own processes are the customer's to restart
    if gpu_verdict(observed, now).action is not Action.RESTART_APP:
        return False
    resource = observed.replica.spec.configuration.resource
    return all(
        placement.gpus >= observed.nodes[placement.node].allocatable.get(resource, 0)
        for placement in observed.status.placements
    )


def _draining(observed: Observed, now: float) -> ReplicaStatus:
    status, cause = observed.status, ending(observed, now)
    why = drain.drained_by(observed, status, cause, now)
    if not why and (observed.pods_missing or observed.progress.reason is not None):
        why = drain.GONE
    if not observed.workload.probed and not same_process(observed):
        why = drain.GONE  # what was held is lost: its time is not said to have lasted until now
    if why:
        return moved(status, Phase.STOPPING, now, drained_by=why)
    until = drain.deadline(observed, cause, since(status))
    return status.model_copy(update={"drain_deadline": timestamp(math.ceil(until))})


def _stopping(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    if not status.drained_by and status.failure is None and ending(observed, now) is not None:
        status = status.model_copy(update={"drained_by": drain.GONE})
    if any(node_of(pod) for pod in observed.pods) and not _ran(status):
        # No phase was seen in which it ran, but its kubelet may have started it since.
        seen = Stage(phase=Phase.SCHEDULED, seconds=0.0)
        status = status.model_copy(update={"stages": [*status.stages, seen]})
    if observed.pods or (observed.makers and now - since(status) < SETTLE_SECONDS):
        return status
    if _must_scrub(observed.at(status)):
        return moved(status, Phase.SCRUBBING, now, scrub=None)
    return _over(status, now)


def _must_scrub(observed: Observed) -> bool:
    """Whether somebody else's code ran on GPUs that still exist and will be given to others."""
    status = observed.status
    if not observed.workload.needs_scrub or _tries_again(status):
        return False
    there = any(placement.node in observed.nodes for placement in status.placements)
    return there and _ran(status)


def _ran(status: ReplicaStatus) -> bool:
    return any(stage.phase not in (Phase.PENDING, Phase.RESERVED) for stage in status.stages)


def _tries_again(status: ReplicaStatus) -> bool:
    return status.failure is None and not status.drained_by


def _over(status: ReplicaStatus, now: float) -> ReplicaStatus:
    if _tries_again(status):
        return _reserved(status, now)
    phase = Phase.RELEASED if status.failure is None else Phase.FAILED
    return moved(
        status, phase, now, placements=[], url="", reserved_until=None, drain_deadline=None
    )


def _scrubbing(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    if not _must_scrub(observed):
        return status if observed.all_pods else _over(status, now)
    if observed.namespace_terminating:
        # Nothing can be made here any more: `plan` takes the nodes out of use instead.
        kept = any(not node.quarantined for node in observed.nodes.values())
        return status if observed.all_pods or kept else _over(status, now)
    if status.scrub is None:
        proof = observed.workload.scrub_proof(observed.replica, observed.scrub_pods, now)
        if proof is not None:
            return status.model_copy(update={"scrub": proof})
        late = now - since(status) >= SCRUB_SECONDS
        return moved(status, Phase.QUARANTINED, now) if late else status
    if not status.scrub.ok:
        return moved(status, Phase.QUARANTINED, now)
    return status if observed.all_pods else _over(status, now)


def _quarantined(observed: Observed, now: float) -> ReplicaStatus:
    vouched = PROVEN_CLEAN_ANNOTATION in observed.replica.annotations
    if (vouched or not _must_scrub(observed)) and not observed.all_pods:
        return _over(observed.status, now)
    return observed.status


def _released(observed: Observed, now: float) -> ReplicaStatus:
    return observed.status


def _given_up(observed: Observed, now: float) -> ReplicaStatus:
    """Failed: it stays, to tell why, until its owner or a person lets it go."""
    if asked(observed) is not None and not observed.all_pods:
        return moved(observed.status, Phase.RELEASED, now)
    return observed.status


def _unserved(observed: Observed, cause: Ending, now: float) -> ReplicaStatus:
    if asked(observed) is not None:
        return moved(observed.status, Phase.STOPPING, now, drained_by=drain.UNSERVED)
    return _failed(observed, cause.reason, cause.message, now)


def _again(
    observed: Observed, reason: Reason, message: str, now: float, retryable: bool = True
) -> ReplicaStatus:
    """Stop the pods and start others on the same GPUs, unless that was tried often enough."""
    status = observed.status
    stable = status.phase is Phase.SERVING and now - since(status) >= STABLE_SECONDS
    attempts = 0 if stable else status.attempts
    if reason is Reason.PREEMPTED or not retryable or attempts >= MAX_ATTEMPTS:
        return _failed(observed, reason, message, now, retryable)
    return moved(status, Phase.STOPPING, now, attempts=attempts, url="")


def _failed(
    observed: Observed, reason: Reason, message: str, now: float, retryable: bool = True
) -> ReplicaStatus:
    failure = Failure(reason=reason, message=message[:1024], retryable=retryable, at=timestamp(now))
    return moved(observed.status, Phase.STOPPING, now, failure=failure, url="")


_STEPS: Mapping[Phase, Callable[[Observed, float], ReplicaStatus]] = {
    Phase.PENDING: _pending,
    **dict.fromkeys(STARTING, _starting),
    Phase.SERVING: _alive,
    Phase.DEGRADED: _alive,
    Phase.DRAINING: _draining,
    Phase.STOPPING: _stopping,
    Phase.SCRUBBING: _scrubbing,
    Phase.RELEASED: _released,
    Phase.FAILED: _given_up,
    Phase.QUARANTINED: _quarantined,
}
