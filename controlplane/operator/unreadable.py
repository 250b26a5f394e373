"""Objects whose spec breaks a rule that the API server did not check; their status says so. Pure.

Servers before 1.25 check no rules between fields. What such an object has, it keeps.
"""

from typing import Any

from pydantic import ValidationError

from controlplane.cluster import Object
from controlplane.crd.conditions import ConditionType, Reason, condition
from controlplane.crd.endpoint import GPUEndpoint, GPUEndpointStatus
from controlplane.crd.inference import InferenceDeployment, InferenceDeploymentStatus
from controlplane.operator.actions import ApplyStatus, Plan

Kind = type[InferenceDeployment] | type[GPUEndpoint]
Status = InferenceDeploymentStatus | GPUEndpointStatus
PHASE = "Refused"


def refuse(kind: Kind, body: Object, error: str, now: float) -> Plan:
    """Return the plan that tells of it, once.

    Args:
        body: the object.
        error: why it cannot be read.
    """
    metadata, stored = body["metadata"], body.get("status", {})
    status = _status(_read(kind, stored), metadata.get("generation", 0), error, now)
    if status.wire() == stored:
        return Plan()
    written = kind.body(metadata["namespace"], metadata["name"], status=status.wire())
    return Plan((ApplyStatus(kind.resource, written),))


def _read(kind: Kind, stored: Object) -> Status:
    model: Any = kind.model_fields["status"].annotation
    try:
        status: Status = model.model_validate(stored)
    except ValidationError:
        status = model()
    return status


def _status(before: Status, generation: int, error: str, now: float) -> Status:
    said = [
        condition(
            before.conditions,
            type,
            False,
            Reason.INVALID_SPEC,
            error,
            generation=generation,
            now=now,
        )
        for type in (ConditionType.READY, ConditionType.ACCEPTED)
    ]
    changed = {"observed_generation": generation, "conditions": said, "phase": PHASE}
    return before.model_copy(update=changed)
