"""What a replica needs now, as a pure function of what is seen. Called by `controller`.

First comes the status, then what follows from it: whatever is created or deleted has its reason
written down before, so that any number of restarts in between change nothing.
"""

from collections.abc import Iterator

from controlplane.cluster import PODS, Object
from controlplane.crd.base import REPLICAS, seconds
from controlplane.crd.replica import Phase, Replica, ReplicaStatus
from controlplane.operator.actions import (
    Action,
    Apply,
    ApplyStatus,
    Create,
    Delete,
    Emit,
    Plan,
)
from controlplane.operator.finalizers import hold, let_go
from controlplane.operator.health.verdict import quarantine
from controlplane.operator.replica import drain, ends, moves, steps
from controlplane.operator.replica.conditions import CLEANUP_SECONDS, with_conditions
from controlplane.operator.replica.ending import node_lost_in_seconds
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.pods import going, vanished

DRAIN_LOOK_SECONDS = 0.5
WAIT_LOOK_SECONDS = 30.0
TOLD_LOOK_SECONDS = 0.5
# Pods' own grace is as long as a drain, for people who delete them by hand. Here that is over.
GRACE_SECONDS = 30
HURRIED_GRACE_SECONDS = 4  # within the margin of a notice

_ENDED = (Phase.RELEASED, Phase.FAILED)
_TOLD = {
    Phase.SERVING: "Normal",
    Phase.DEGRADED: "Warning",
    Phase.DRAINING: "Normal",
    Phase.FAILED: "Warning",
    Phase.QUARANTINED: "Warning",
}


def plan(observed: Observed, now: float) -> Plan:
    """Return the next steps and when to look again."""
    replica = observed.replica
    if replica.finalized and not replica.deleting:
        # Before anything that has to be taken back.
        return Plan((hold(replica),), 0.0)
    status = with_conditions(observed, steps.advance(observed, now), now)
    actions: list[Action] = []
    if status != replica.status:
        metadata = {"resourceVersion": replica.resource_version}
        body = Replica.body(
            replica.namespace, replica.name, metadata=metadata, status=status.wire()
        )
        actions.append(ApplyStatus(REPLICAS, body))
    after = observed.at(status)
    actions.extend(_deeds(after, now))
    actions.extend(_events(replica, status))
    if status == replica.status and not observed.all_pods:
        actions.extend(_farewell(after))
    return Plan(tuple(actions), _again_in_seconds(after, now))


def plan_orphans(pods: tuple[Object, ...]) -> Plan:
    """Delete pods whose replica is gone: nothing else would, and GPUs are paid for."""
    return Plan(tuple(_delete(pod) for pod in pods if not going(pod)))


def _deeds(observed: Observed, now: float) -> Iterator[Action]:
    phase = observed.status.phase
    if phase is Phase.RESERVED:
        yield from _start(observed, now)
    elif phase is Phase.SCRUBBING:
        yield from _scrub(observed)
    elif phase is Phase.STOPPING or phase is Phase.QUARANTINED or phase in _ENDED:
        yield from _stop(observed)


def _start(observed: Observed, now: float) -> Iterator[Action]:
    status = observed.status
    if not observed.pods_missing or now < _starts_at(status):
        return
    assert not observed.replica.deleting
    assert not observed.namespace_terminating
    there = {pod["metadata"]["name"] for pod in observed.pods}
    for resource, body in observed.manifests:
        if resource is not PODS:
            yield Apply(resource, body)
        elif body["metadata"]["name"] not in there:
            yield Create(resource, body)


def _starts_at(status: ReplicaStatus) -> float:
    return moves.since(status) + moves.backoff_seconds(status.attempts)


def _stop(observed: Observed) -> Iterator[Action]:
    if observed.status.phase is Phase.STOPPING:
        # What makes pods goes first, else it would make them again; absent is fine. What is only
        # beside them goes with the replica.
        for resource, body in observed.makers:
            yield Delete(resource, observed.replica.namespace, body["metadata"]["name"])
    yield from _delete_all(observed, observed.all_pods)


def _delete_all(observed: Observed, pods: tuple[Object, ...]) -> Iterator[Action]:
    for pod in pods:
        if vanished(pod, observed.nodes):
            # No kubelet is left to confirm: this is the proof that it is gone.
            yield _delete(pod, grace_seconds=0)
        elif not going(pod):
            hurried = observed.status.drained_by == drain.DEADLINE
            yield _delete(pod, HURRIED_GRACE_SECONDS if hurried else GRACE_SECONDS)


def _delete(pod: Object, grace_seconds: int | None = None) -> Delete:
    metadata = pod["metadata"]
    return Delete(PODS, metadata["namespace"], metadata["name"], metadata["uid"], grace_seconds)


def _scrub(observed: Observed) -> Iterator[Action]:
    if observed.namespace_terminating:
        # No pod can be made to prove the GPUs clean, so nobody gets them.
        why = f"GPUs of {observed.replica.key} were not proven clean"
        for node in observed.nodes.values():
            if not node.quarantined:
                yield quarantine(node.name, why)
        yield from _delete_all(observed, observed.all_pods)
    elif observed.status.scrub is not None or not ends.must_scrub(observed):
        yield from _delete_all(observed, observed.all_pods)
    else:
        there = {pod["metadata"]["name"] for pod in observed.all_pods}
        for resource, body in observed.workload.scrub_manifests(observed.replica):
            if body["metadata"]["name"] not in there:
                yield Create(resource, body)


def _farewell(observed: Observed) -> Iterator[Action]:
    """Let the object go, a round after its last status was written and its pods were gone. Of one
    that served somebody it is the only record, so it stays until its end was told."""
    replica = observed.replica
    if observed.status.phase not in _ENDED or _untold(observed):
        return
    if replica.deleting and not replica.finalized:
        yield let_go(replica)
    elif not replica.deleting and observed.status.phase is Phase.RELEASED:
        yield Delete(REPLICAS, replica.namespace, replica.name, replica.uid)


def _untold(observed: Observed) -> bool:
    return observed.status.serving_since is not None and not observed.end_told


def _events(replica: Replica, status: ReplicaStatus) -> Iterator[Emit]:
    kind = _TOLD.get(status.phase)
    if status.phase == replica.status.phase or kind is None:
        return
    ready = next(it for it in status.conditions if it.type == "Ready")
    about = Replica.body(replica.namespace, replica.name, metadata={"uid": replica.uid})
    message = f"{ready.reason} {ready.message}".strip()
    yield Emit(about, kind, str(status.phase), message)


def _again_in_seconds(observed: Observed, now: float) -> float | None:
    """Return when time alone may change something; None: only a change does."""
    status = observed.status
    moments: list[float] = []
    if status.phase is Phase.RESERVED:
        assert status.reserved_until is not None
        moments += [seconds(status.reserved_until), _starts_at(status)]
    began = moves.since(status)
    if status.phase is Phase.STOPPING and observed.makers:
        moments.append(began + ends.SETTLE_SECONDS)
    lasting = {
        Phase.PROBING: steps.PROBE_SECONDS,
        Phase.DEGRADED: steps.DEGRADED_SECONDS,
        Phase.STOPPING: CLEANUP_SECONDS,
        Phase.SCRUBBING: ends.SCRUB_SECONDS,
    }
    if status.phase in lasting:
        moments.append(began + lasting[status.phase])
    waits = [moment - now for moment in moments if moment > now]
    if status.phase is Phase.PENDING:
        waits.append(WAIT_LOOK_SECONDS)
    if status.phase is Phase.DRAINING:
        until = drain.deadline(observed, None, began) - now
        waits.append(max(0.0, min(DRAIN_LOOK_SECONDS, until)))
    if status.phase in _ENDED and _untold(observed):
        waits.append(TOLD_LOOK_SECONDS)
    lost_in = node_lost_in_seconds(observed, now)
    if lost_in is not None:
        waits.append(lost_in)
    return min(waits, default=None)
