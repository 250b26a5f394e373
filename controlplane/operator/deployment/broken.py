"""Deployments whose spec breaks a rule that the API server did not check. Pure; for `controller`.

What runs stays, nothing is made, the status tells what is wrong, and a deletion ends all the same.
"""

from collections.abc import Sequence

from pydantic import ValidationError

from controlplane.cluster import Object
from controlplane.crd.base import DEPLOYMENTS, FINALIZER
from controlplane.crd.conditions import ConditionType, Reason, condition
from controlplane.crd.inference import InferenceDeployment, InferenceDeploymentStatus
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.actions import Action, ApplyStatus, Patch, Plan
from controlplane.operator.deployment import replicas as writes
from controlplane.operator.deployment.fleet import ENDED, is_leaving


def plan_broken(body: Object, error: str, replicas: Sequence[Replica], now: float) -> Plan:
    """Return the next steps for a deployment that cannot be read.

    Args:
        body: the object.
        error: why it cannot.
        replicas: its own.
    """
    if "deletionTimestamp" in body["metadata"]:
        return _ending(body, replicas)
    status = _status(body, error, now)
    if status.wire() == body.get("status", {}):
        return Plan()
    metadata = body["metadata"]
    written = InferenceDeployment.body(
        metadata["namespace"], metadata["name"], status=status.wire()
    )
    return Plan((ApplyStatus(DEPLOYMENTS, written),))


def _status(body: Object, error: str, now: float) -> InferenceDeploymentStatus:
    try:
        before = InferenceDeploymentStatus.model_validate(body.get("status", {}))
    except ValidationError:
        before = InferenceDeploymentStatus()
    generation = body["metadata"].get("generation", 0)
    said = [
        condition(
            before.conditions,
            type,
            "False",
            Reason.INVALID_SPEC,
            error,
            generation=generation,
            now=now,
        )
        for type in (ConditionType.READY, ConditionType.ACCEPTED)
    ]
    return before.model_copy(
        update={"observed_generation": generation, "conditions": said, "phase": "Refused"}
    )


def _ending(body: Object, replicas: Sequence[Replica]) -> Plan:
    metadata = body["metadata"]
    finalizers = metadata.get("finalizers", [])
    if all(it.status.phase is Phase.QUARANTINED for it in replicas):
        if FINALIZER not in finalizers:
            return Plan()
        left = [it for it in finalizers if it != FINALIZER]
        change = {"metadata": {"finalizers": left, "resourceVersion": metadata["resourceVersion"]}}
        return Plan((Patch(DEPLOYMENTS, metadata["namespace"], metadata["name"], change),))
    staying = [it for it in replicas if not is_leaving(it)]
    ended = [it for it in replicas if it.status.phase in ENDED and not it.deleting]
    actions: list[Action] = [
        *(writes.drain(it, Reason.DELETING) for it in staying),
        *map(writes.remove, ended),
    ]
    return Plan(tuple(actions))
