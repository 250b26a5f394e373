"""A replica's life: from one phase to the next, as pure functions of what is seen.

```
Pending > Reserved > Scheduled > Fetching > Loading > Probing > Serving <> Degraded
any of these > Draining > Stopping > [Scrubbing >] Released | Failed | Quarantined
Stopping > Reserved: another try on the same GPUs
```

What follows Draining is in `ends`.
"""

import math
from collections.abc import Callable, Mapping

from controlplane.crd.base import seconds, timestamp
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Failure, Phase, ReplicaStatus
from controlplane.operator.health.table import Action
from controlplane.operator.replica import drain, ends
from controlplane.operator.replica.ending import Ending, asked, ending, gpu_verdict
from controlplane.operator.replica.moves import PENDING_SECONDS, moved, reserved, since
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.pods import address, restarts_itself, started_at

MAX_ATTEMPTS = 3  # sets of pods
IN_PLACE_RESTARTS = 3  # that the kubelet makes of one pod's containers before others are made
PROBE_SECONDS = 300.0  # from ready pods to a completed generation
DEGRADED_SECONDS = 120.0  # without an answer until the engine is started anew
STABLE_SECONDS = 600.0  # served for so long, earlier crashes are forgotten
ENGINE_PORT = 8000

STARTING = (Phase.RESERVED, Phase.SCHEDULED, Phase.FETCHING, Phase.LOADING, Phase.PROBING)


def advance(observed: Observed, now: float) -> ReplicaStatus:
    """Return the status that is true now; it may be several phases further than the last one."""
    for _ in Phase:
        status = _STEPS[observed.status.phase](observed, now)
        if status.phase == observed.status.phase:
            return status
        observed = observed.at(status)
    raise AssertionError(f"phases go round in a circle, at {observed.status.phase}")


def _pending(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    if status.phase_since is None:
        status = status.model_copy(update={"phase_since": timestamp(now)})
    if ending(observed, now) is not None or observed.pods:
        return moved(status, Phase.STOPPING, now, drained_by=drain.UNSERVED)
    if not observed.offer:
        return status
    return reserved(status, now, placements=list(observed.offer))


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
    if not observed.same_process:
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
    Phase.DRAINING: ends.draining,
    Phase.STOPPING: ends.stopping,
    Phase.SCRUBBING: ends.scrubbing,
    Phase.RELEASED: ends.released,
    Phase.FAILED: ends.given_up,
    Phase.QUARANTINED: ends.quarantined,
}
