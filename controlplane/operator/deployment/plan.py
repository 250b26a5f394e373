"""What a deployment needs now, as a pure function of what is seen. Called by `controller`.

The order of a plan's writes: finalizer, namespace, weights (traffic first), the status if a rollout
moved, drains, new replicas, removals, the status, events.
"""

from collections.abc import Iterator
from dataclasses import replace

from controlplane.cluster import Object
from controlplane.crd.base import DEPLOYMENTS
from controlplane.crd.conditions import Reason
from controlplane.crd.inference import InferenceDeployment, InferenceDeploymentStatus
from controlplane.crd.replica import Phase
from controlplane.operator.actions import Action, ApplyStatus, Emit, Plan
from controlplane.operator.deployment import crew, law, replicas
from controlplane.operator.deployment.acceptance import Refusal, refusal
from controlplane.operator.deployment.choice import is_waiting, pause_seconds
from controlplane.operator.deployment.conditions import Scene
from controlplane.operator.deployment.fleet import Fleet, is_leaving, sort
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.rollout import Course, course
from controlplane.operator.deployment.scaling import decide, missing_signals
from controlplane.operator.deployment.status import status
from controlplane.operator.deployment.windows import next_change
from controlplane.operator.finalizers import hold, let_go
from controlplane.operator.tenants.namespace import repairs

TICK_SECONDS = 1.0  # while load or a rollout is followed
WAIT_SECONDS = 5.0  # while GPUs are waited for
ISOLATION_SECONDS = 60.0  # between looks at a tenant's namespace


def plan(observed: Observed, now: float) -> Plan:
    """Return the next steps. `now` is in seconds since 1970; `observed` remembers it already."""
    observed = _halted(observed)
    deployment, fleet = observed.deployment, sort(observed)
    if deployment.deleting or observed.namespace.terminating:
        return _ending(observed, fleet, now)
    refused = refusal(observed)
    if refused is not None:
        return _refused(observed, fleet, refused, now)
    decision = decide(observed, now)
    desired, closed = decision[1].after, bool(decision[0].closed)
    way = course(observed, fleet, desired, now)
    proven = deployment.status.proven and way.current == deployment.status.current_revision
    pause = pause_seconds(fleet, way.current, now, proven=proven)
    blind = deployment.spec.scaling is not None and missing_signals(observed, now)
    scene = Scene(observed, fleet, desired, closed, None, way, blind, pause)
    written = _status(deployment, status(scene, decision, now))
    moved = (way.current, way.rollout) != (
        deployment.status.current_revision,
        deployment.status.rollout,
    )
    why = Reason.STOPPED if closed else Reason.SCALING
    actions: list[Action] = [
        *([hold(deployment)] if deployment.finalized else ()),
        *repairs(observed.namespace),
        *crew.weigh(fleet, way),
        *(written if moved else ()),
        *crew.drain(observed, fleet, way, why, now),
        *replicas.limit_drains(fleet.live, deployment.spec.drain.timeout_seconds),
        *crew.create(observed, fleet, way, now),
        *crew.remove(observed, fleet, way, now),
        *(() if moved else written),
        *_events(deployment, decision[1], way),
    ]
    return Plan(tuple(actions), _again_in_seconds(observed, fleet, way, pause, now))


def _halted(observed: Observed) -> Observed:
    """Return the same with a stopped spec where nothing may run in the namespace."""
    deployment = observed.deployment
    if not observed.namespace.suspended or deployment.spec.stopped:
        return observed
    spec = deployment.spec.model_copy(update={"stopped": True})
    return replace(observed, deployment=deployment.model_copy(update={"spec": spec}))


def _again_in_seconds(
    observed: Observed, fleet: Fleet, way: Course, pause: float, now: float
) -> float | None:
    spec = observed.deployment.spec
    schedules = spec.scaling.schedules if spec.scaling is not None else []
    boundary = next_change([*spec.windows, *schedules], now)
    waits = [boundary - now] if boundary is not None else []
    if spec.scaling is not None or (way.wanted != way.current and not way.refused):
        waits.append(TICK_SECONDS)
    if observed.namespace.wanted:
        waits.append(ISOLATION_SECONDS)
    if any(is_waiting(it) for it in fleet.live) or fleet.ended or observed.namespace.missing:
        waits.append(WAIT_SECONDS)
    if 0 < pause < float("inf"):
        waits.append(pause)
    return min(waits, default=None)


def _status(deployment: InferenceDeployment, made: InferenceDeploymentStatus) -> list[Action]:
    before = deployment.status
    if made == before or made.wire() == before.wire():  # the second costs fifty times the first
        return []
    body = InferenceDeployment.body(deployment.namespace, deployment.name, status=made.wire())
    return [ApplyStatus(DEPLOYMENTS, body)]


def _refused(observed: Observed, fleet: Fleet, refused: Refusal, now: float) -> Plan:
    """A spec that cannot be made true: what runs stays, unless it is to stop anyway."""
    deployment = observed.deployment
    desired = 0 if deployment.spec.stopped else deployment.status.desired
    scene = Scene(observed, fleet, desired, deployment.spec.stopped, refused, None, False, 0.0)
    stopping = fleet.live if deployment.spec.stopped else ()
    released = [it for it in fleet.ended if it.status.phase is Phase.RELEASED and not it.deleting]
    known = any(
        it.type == "Accepted" and it.status == "False" and it.message == refused.message
        for it in deployment.status.conditions
    )
    told = () if known else (_event(deployment, "Warning", refused.reason, refused.message),)
    actions: list[Action] = [
        *(replicas.drain(it, Reason.STOPPED) for it in stopping),
        *(replicas.remove(it) for it in released),
        *_status(deployment, status(scene, None, now)),
        *told,
    ]
    return Plan(tuple(actions))


def _ending(observed: Observed, fleet: Fleet, now: float) -> Plan:
    """Deleted, or in a namespace that is: nothing is made; the last replica's end is the end.

    A namespace takes its objects with it one by one; none is ended before it was its turn.
    """
    deployment = observed.deployment
    scene = Scene(observed, fleet, 0, True, None, None, False, 0.0)
    if deployment.deleting and _is_empty(fleet) and not observed.taken_slots:
        return Plan() if deployment.finalized else Plan((let_go(deployment),))
    staying = [it for it in fleet.every if not is_leaving(it)] if deployment.deleting else []
    actions: list[Action] = [
        *(replicas.drain(it, Reason.DELETING) for it in staying),
        *(replicas.remove(it) for it in fleet.ended if not it.deleting),
        *_status(deployment, status(scene, None, now)),
    ]
    return Plan(tuple(actions))


def _is_empty(fleet: Fleet) -> bool:
    """GPUs that could not be proven clean stay reserved, but are the platform's matter."""
    return all(it.status.phase is Phase.QUARANTINED for it in fleet.every)


def _events(deployment: InferenceDeployment, outcome: law.Outcome, way: Course) -> Iterator[Emit]:
    before = deployment.status
    if outcome.after != before.desired:
        message = f"{before.desired} to {outcome.after} replicas: {outcome.why}"
        yield _event(deployment, "Normal", Reason.SCALING, message)
    if way.aborted:
        message = f"revision {way.wanted} was given up: {way.aborted}"
        yield _event(deployment, "Warning", Reason.CANARY_ABORTED, message)
    elif way.rollout is not None and before.rollout is None:
        yield _event(deployment, "Normal", Reason.ROLLING_OUT, f"revision {way.wanted} starts")
    elif before.current_revision not in ("", way.current):
        message = f"revision {way.current} has taken over"
        yield _event(deployment, "Normal", Reason.ROLLING_OUT, message)


def _event(deployment: InferenceDeployment, type: str, reason: Reason, message: str) -> Emit:
    about: Object = InferenceDeployment.body(
        deployment.namespace, deployment.name, metadata={"uid": deployment.uid}
    )
    return Emit(about, type, reason, message)
