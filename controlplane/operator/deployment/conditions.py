"""The conditions of a deployment's status. Pure; called by `status`.

All are made anew from one look, so none can speak of an older generation; what replicas say about
an older spec of theirs counts as unknown, and makes Available and Ready unknown where it matters.
"""

from collections.abc import Iterator
from typing import NamedTuple

from controlplane.crd.conditions import Condition, ConditionType, Reason, Status, condition
from controlplane.crd.replica import Phase
from controlplane.operator.deployment.acceptance import Refusal, passed_over
from controlplane.operator.deployment.choice import is_waiting
from controlplane.operator.deployment.fleet import Fleet, is_fresh
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.rollout import Course
from controlplane.operator.deployment.slots import all_slots
from controlplane.operator.tenants.namespace import isolation


class Word(NamedTuple):
    """One condition before it has times."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str = ""


class Scene(NamedTuple):
    """What conditions are told from."""

    observed: Observed
    fleet: Fleet
    desired: int
    closed: bool
    refusal: Refusal | None
    course: Course | None
    missing_signals: bool
    pause_seconds: float


def conditions(scene: Scene, now: float) -> list[Condition]:
    """Return all conditions that apply to the deployment, Ready first."""
    deployment = scene.observed.deployment
    words = [
        _accepted(scene),
        _capacity(scene),
        _available(scene),
        _progressing(scene),
        _gpus(scene),
        *_scaling(scene),
        *_isolation(scene),
        *_cleanup(scene),
    ]
    return [
        condition(
            deployment.status.conditions,
            word.type,
            word.status,
            word.reason,
            word.message,
            generation=deployment.generation,
            now=now,
        )
        for word in (_ready(scene, words), *words)
    ]


_NEEDED = (
    ConditionType.ACCEPTED,
    ConditionType.ISOLATION_ENFORCED,
    ConditionType.AVAILABLE,
    ConditionType.GPU_HEALTHY,
)


def _ready(scene: Scene, words: list[Word]) -> Word:
    """True when all needed conditions are, and as many replicas serve as are wanted."""
    ready = ConditionType.READY
    if scene.observed.deployment.deleting:
        return Word(ready, "False", Reason.DELETING)
    needed = [it for it in words if it.type in _NEEDED]
    at_rest = _at_rest(scene)
    if at_rest is not None:
        needed = [it for it in needed if it.type is not ConditionType.AVAILABLE]
    for status in ("False", "Unknown"):
        for word in needed:
            if word.status == status:
                return Word(ready, word.status, word.reason, word.message)
    if at_rest is not None:
        return Word(ready, "True", at_rest, scene.observed.namespace.why_suspended)
    serving = scene.fleet.serving()
    if len(serving) < scene.desired:
        missing = f"{len(serving)} of {scene.desired} replicas serve"
        return Word(ready, "False", _why_not_more(scene), missing)
    if sum(map(is_fresh, serving)) < scene.desired:
        return Word(ready, "Unknown", Reason.STALE, "replicas have not answered to their new spec")
    return Word(ready, "True", Reason.AS_WANTED)


def _at_rest(scene: Scene) -> Reason | None:
    """Return why it has no replica on purpose; None: it should have one."""
    if scene.closed:
        return Reason.STOPPED
    return Reason.IDLE if scene.desired == 0 else None


def _accepted(scene: Scene) -> Word:
    if scene.refusal is not None:
        return Word(ConditionType.ACCEPTED, "False", scene.refusal.reason, scene.refusal.message)
    message = passed_over(scene.observed)
    return Word(ConditionType.ACCEPTED, "True", Reason.AS_WANTED, message)


def _capacity(scene: Scene) -> Word:
    kind, live = ConditionType.CAPACITY_RESERVED, scene.fleet.live
    waiting = [it.name for it in live if is_waiting(it)]
    if waiting:
        message = f"no free GPUs for {', '.join(sorted(waiting))}"
        return Word(kind, "False", Reason.WAITING_FOR_CAPACITY, message)
    if len(live) >= scene.desired:
        return Word(kind, "True", _at_rest(scene) or Reason.AS_WANTED)
    if scene.refusal is None and len(live) >= all_slots(scene.observed):
        budget = scene.observed.deployment.spec.budget_gpus
        message = f"budgetGPUs {budget} allows {all_slots(scene.observed)} replicas"
        return Word(kind, "False", Reason.QUOTA_EXCEEDED, message)
    return Word(kind, "False", _why_not_more(scene))


def _available(scene: Scene) -> Word:
    kind, serving = ConditionType.AVAILABLE, scene.fleet.serving()
    if any(map(is_fresh, serving)):
        return Word(kind, "True", Reason.AS_WANTED)
    if serving:
        return Word(kind, "Unknown", Reason.STALE, "replicas have not answered to their new spec")
    return Word(kind, "False", _at_rest(scene) or _why_not_more(scene))


def _why_not_more(scene: Scene) -> Reason:
    """Return the reason that explains best why fewer serve than are wanted."""
    if scene.refusal is not None:
        return scene.refusal.reason
    fleet = scene.fleet
    if any(is_waiting(it) for it in fleet.live):
        return Reason.WAITING_FOR_CAPACITY
    failed = [it for it in fleet.ended if it.status.failure is not None]
    if failed and not fleet.loading:
        failure = max(failed, key=lambda it: it.status.failure.at).status.failure  # type: ignore[union-attr]
        if failure is not None and failure.reason in set(Reason):
            return Reason(failure.reason)
    if fleet.noticed and not fleet.loading:
        return Reason.PREEMPTED
    return Reason.STARTING


def _progressing(scene: Scene) -> Word:
    kind, course, fleet = ConditionType.PROGRESSING, scene.course, scene.fleet
    if scene.observed.refused:
        return Word(kind, "False", Reason.CLUSTER_REFUSED, scene.observed.refused)
    if scene.observed.deployment.deleting:
        return Word(kind, "True", Reason.DELETING)
    if scene.observed.namespace.terminating:
        return Word(kind, "False", Reason.NAMESPACE_TERMINATING)
    if course is not None and course.wanted != course.current:
        return _rollout(course)
    if scene.pause_seconds > 0 and len(fleet.live) < scene.desired:
        return _paused(scene)
    if len(fleet.live) < scene.desired and scene.refusal is None:
        return Word(kind, "True", Reason.SCALING)
    if len(fleet.serving()) < min(scene.desired, len(fleet.live)):
        return Word(kind, "True", Reason.STARTING)
    if fleet.draining or len(fleet.live) > scene.desired:
        return Word(kind, "True", Reason.DRAINING)
    return Word(kind, "False", _at_rest(scene) or Reason.AS_WANTED)


def _rollout(course: Course) -> Word:
    kind, rollout = ConditionType.PROGRESSING, course.rollout
    if course.refused == course.wanted:
        why = rollout.aborted if rollout is not None and rollout.aborted else ""
        message = f"revision {course.wanted} was given up: {why}; change the spec to try again"
        return Word(kind, "False", Reason.CANARY_ABORTED, message)
    if course.no_room:
        message = (
            "no room for one more replica: raise budgetGPUs, or lower the number of replicas, "
            "to let the new revision start beside the current one"
        )
        return Word(kind, "False", Reason.QUOTA_EXCEEDED, message)
    return Word(kind, "True", Reason.ROLLING_OUT, f"revision {course.wanted}")


def _paused(scene: Scene) -> Word:
    kind = ConditionType.PROGRESSING
    failed = [it.status.failure for it in scene.fleet.ended if it.status.failure is not None]
    message = max(failed, key=lambda it: it.at).message if failed else ""
    return Word(kind, "False", _why_not_more(scene), message)


def _gpus(scene: Scene) -> Word:
    kind = ConditionType.GPU_HEALTHY
    sick = [
        replica.name
        for replica in scene.fleet.every
        for said in replica.status.conditions
        if said.type == kind and said.status == "False"
    ]
    if sick:
        return Word(kind, "False", Reason.GPU_FAULT, f"{', '.join(sorted(sick))} reported a fault")
    return Word(kind, "True", Reason.AS_WANTED)


def _scaling(scene: Scene) -> Iterator[Word]:
    kind, course = ConditionType.SCALING_ACTIVE, scene.course
    if scene.observed.deployment.spec.scaling is None:
        return
    if scene.closed or scene.refusal is not None or scene.observed.deployment.deleting:
        yield Word(kind, "False", scene.refusal.reason if scene.refusal else Reason.STOPPED)
    elif course is not None and course.rollout is not None and course.rollout.aborted is None:
        yield Word(kind, "False", Reason.ROLLING_OUT, "frozen while a revision rolls out")
    elif scene.missing_signals:
        yield Word(kind, "False", Reason.SIGNALS_MISSING, "nothing is scaled down without them")
    else:
        yield Word(kind, "True", Reason.AS_WANTED)


def _isolation(scene: Scene) -> Iterator[Word]:
    if scene.observed.deployment.spec.path == "dedicated":
        yield Word(ConditionType.ISOLATION_ENFORCED, *isolation(scene.observed.namespace))


_STUCK_PHASES = (Phase.STOPPING, Phase.SCRUBBING, Phase.QUARANTINED)


def _cleanup(scene: Scene) -> Iterator[Word]:
    """Only while it is being deleted: what the deletion waits for, if a person must see to it."""
    if not scene.observed.deployment.deleting:
        return
    stuck = [
        f"{it.name} is {it.status.phase}: {said.message}"
        for it in scene.fleet.every
        if it.status.phase in _STUCK_PHASES
        for said in it.status.conditions
        if said.type == ConditionType.CLEANUP_BLOCKED and said.status == "True"
    ]
    if stuck:
        message = "; ".join(stuck)
        yield Word(ConditionType.CLEANUP_BLOCKED, "True", Reason.CLUSTER_REFUSED, message)
