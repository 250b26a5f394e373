"""Conditions and their reasons: the documented words of every status.

A condition is there because somebody can act on it. `Ready` is computed from the others, and is
Unknown while one of them speaks of an older generation.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from pydantic import Field

from controlplane.crd.base import StatusModel, timestamp


class ConditionType(StrEnum):
    """What a condition speaks of."""

    READY = "Ready"  # it does what its spec says
    ACCEPTED = "Accepted"  # the spec makes sense on this cluster
    CAPACITY_RESERVED = "CapacityReserved"  # its GPUs are set aside
    AVAILABLE = "Available"  # at least one replica answers
    PROGRESSING = "Progressing"  # it is on its way to what its spec says
    SCALING_ACTIVE = "ScalingActive"  # signals are there and scaling is not frozen
    GPU_HEALTHY = "GPUHealthy"  # no GPU of its replicas reported a fault
    ISOLATION_ENFORCED = "IsolationEnforced"  # namespace, policies and quota are in place
    CLEANUP_BLOCKED = "CleanupBlocked"  # deletion waits for something a person must see to


class Reason(StrEnum):
    """Why a condition is what it is; every reason a status can hold is one of these.

    charts/flashplane/README.md tells users what to do about each.
    """

    # All is as it should be.
    AS_WANTED = "AsWanted"  # what the spec says is true
    IDLE = "Idle"  # at zero replicas on purpose; a request starts one
    STOPPED = "Stopped"  # stopped by its spec, its window or its owner
    # On its way.
    STARTING = "Starting"  # replicas are reserved, fetching, loading or probing
    SCALING = "Scaling"  # the number of replicas is changing
    ROLLING_OUT = "RollingOut"  # a candidate revision takes over step by step
    DRAINING = "Draining"  # requests finish before replicas go
    DELETING = "Deleting"  # it is being deleted
    # The spec, for whoever wrote it.
    INVALID_SPEC = "InvalidSpec"  # contradicts itself; the message says where
    UNKNOWN_CONFIGURATION = "UnknownConfiguration"  # no such GPU configuration in the catalogue
    IMPOSSIBLE_GEOMETRY = "ImpossibleGeometry"  # the engine cannot run the model there
    DOES_NOT_FIT = "DoesNotFit"  # weights or context exceed the GPUs' memory
    NAMESPACE_NOT_TENANT = "NamespaceNotTenant"  # its namespace does not belong to its tenant
    # Capacity, for whoever owns the cluster.
    WAITING_FOR_CAPACITY = "WaitingForCapacity"  # no nodes with enough free GPUs now
    QUOTA_EXCEEDED = "QuotaExceeded"  # the tenant's quota or the GPU budget is used up
    PENDING_TOO_LONG = "PendingTooLong"  # reserved, but its pods did not start in time
    PREEMPTED = "Preempted"  # the provider takes its spot nodes back
    # Faults.
    IMAGE_UNAVAILABLE = "ImageUnavailable"  # the image cannot be pulled, or none is named
    WEIGHTS_UNAVAILABLE = "WeightsUnavailable"  # the weights cannot be fetched, or are not these
    ENGINE_FAILED = "EngineFailed"  # the engine ends, or does not answer a completion
    START_TIMED_OUT = "StartTimedOut"  # loading took longer than its size explains
    GPU_FAULT = "GPUFault"  # a GPU reported an error
    NODE_LOST = "NodeLost"  # its node is gone or not ready
    CANARY_ABORTED = "CanaryAborted"  # the candidate was worse; the old revision has all traffic
    SCRUB_FAILED = "ScrubFailed"  # a GPU could not be proven clean; it is quarantined
    SIGNALS_MISSING = "SignalsMissing"  # no reports from gateways or engines: nothing is scaled
    STALE = "Stale"  # an input speaks of an older generation
    CLUSTER_REFUSED = "ClusterRefused"  # the API server refuses a write; the message says which
    NAMESPACE_TERMINATING = "NamespaceTerminating"  # its namespace is being deleted


Status = Literal["True", "False", "Unknown"]


class Condition(StatusModel):
    """One statement of a status, in Kubernetes' form."""

    type: str
    status: Status
    reason: str
    message: str = Field("", max_length=1024)
    observed_generation: int | None = None
    last_transition_time: str


def condition(
    previous: Iterable[Condition],
    type: ConditionType,
    status: Status | bool,
    reason: Reason,
    message: str = "",
    *,
    generation: int,
    now: float,
) -> Condition:
    """Return a condition whose transition time moves only when its status changes."""
    word: Status = status if isinstance(status, str) else ("True" if status else "False")
    before = next((it for it in previous if it.type == type), None)
    unchanged = before is not None and before.status == word
    return Condition(
        type=type,
        status=word,
        reason=reason,
        message=message[:1024],
        observed_generation=generation,
        last_transition_time=before.last_transition_time
        if before is not None and unchanged
        else timestamp(now),
    )
