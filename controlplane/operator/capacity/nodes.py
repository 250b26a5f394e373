"""Nodes as placement and health see them, parsed once per change by the cache of nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from controlplane.cluster import Object
from controlplane.crd.base import GROUP, seconds
from controlplane.operator.capacity.quantities import quantity

QUARANTINE_ANNOTATION = f"{GROUP}/quarantined"  # on a node: why; a person takes it off
TENANT_TAINT = f"{GROUP}/tenant"  # NoSchedule for all but the tenant in its value
OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"  # a person says: this node is off

# Taints that say "the provider takes this node away", and the notice it gives in seconds.
NOTICE_TAINTS: Mapping[str, float] = {
    "aws-node-termination-handler/spot-itn": 120.0,
    "aws-node-termination-handler/scheduled-maintenance": 120.0,
    "cloud.google.com/impending-node-termination": 30.0,
    "node.cloudprovider.kubernetes.io/shutdown": 30.0,
    "kubernetes.azure.com/scheduled-event": 30.0,
    "karpenter.sh/disrupted": 120.0,
    f"{GROUP}/preempted": 30.0,
}
# Conditions of node-problem-detector and Azure's agent that say the same while they are True.
NOTICE_CONDITIONS: Mapping[str, float] = {
    "VMEventScheduled": 30.0,
    "PreemptionNotice": 30.0,
    "TerminationNotice": 30.0,
}
# Labels by which clouds and autoscalers tell spot nodes.
SPOT_LABELS: Mapping[str, str] = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
    f"{GROUP}/spot": "true",
}
# Taints that nodes with GPUs, spot nodes among them, carry by convention; replicas tolerate them.
TOLERATED_TAINTS = frozenset(
    {
        "nvidia.com/gpu",
        "sku",
        "kubernetes.azure.com/scalesetpriority",
        "cloud.google.com/gke-spot",
        f"{GROUP}/gpu",
    }
)


@dataclass(frozen=True)
class Taint:
    """A mark that keeps pods away."""

    key: str
    value: str
    effect: str
    added_at: float | None


@dataclass(frozen=True)
class Node:
    """A machine. Quantities: extended resources in pieces, cpu in cores, memory in bytes.

    Attributes:
        changed_at: when its readiness changed last, seconds since 1970 UTC; 0 if it never told.
    """

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: tuple[Taint, ...]
    allocatable: Mapping[str, float]
    ready: bool
    changed_at: float
    unschedulable: bool
    conditions: Mapping[str, Mapping[str, Any]] = field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, body: Object) -> "Node":
        """Return a node's typed form.

        Raises:
            ValueError: a quantity cannot be read.
        """
        metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
        conditions = {it["type"]: _lasting(it) for it in status.get("conditions", ())}
        ready = conditions.get("Ready", {})
        return cls(
            name=metadata["name"],
            labels=metadata.get("labels", {}),
            annotations=metadata.get("annotations", {}),
            taints=tuple(_taint(it) for it in spec.get("taints", ())),
            allocatable={
                name: quantity(value) for name, value in status.get("allocatable", {}).items()
            },
            ready=ready.get("status") == "True",
            changed_at=_moment(ready.get("lastTransitionTime")) or 0.0,
            unschedulable=bool(spec.get("unschedulable", False)),
            conditions=conditions,
        )

    @property
    def quarantined(self) -> str:
        """Why nothing may be placed on it; empty: it may."""
        return self.annotations.get(QUARANTINE_ANNOTATION, "")

    @cached_property
    def usable(self) -> bool:
        """Whether anything may be placed on it."""
        return (
            self.ready
            and not self.unschedulable
            and not self.quarantined
            and self.notice(0.0) is None
        )

    @cached_property
    def spot(self) -> bool:
        """Whether its provider may take it away after a notice."""
        return any(self.labels.get(key) == value for key, value in SPOT_LABELS.items())

    @property
    def out_of_service(self) -> bool:
        """Whether a person has said that nothing runs on it any more."""
        return any(taint.key == OUT_OF_SERVICE_TAINT for taint in self.taints)

    def notice(self, seen_at: float) -> float | None:
        """Return when the provider takes it away, seconds since 1970; None: nothing is known.

        `seen_at` is when the mark was first seen: it counts where the mark itself has no time.
        """
        ends = [
            (taint.added_at or seen_at) + NOTICE_TAINTS[taint.key]
            for taint in self.taints
            if taint.key in NOTICE_TAINTS
        ]
        for type, notice_seconds in NOTICE_CONDITIONS.items():
            condition = self.conditions.get(type, {})
            if condition.get("status") == "True":
                since = _moment(condition.get("lastTransitionTime")) or seen_at
                ends.append(since + notice_seconds)
        return min(ends, default=None)


def _lasting(condition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the moment of the last heartbeat, so that a node that only beats is the same."""
    return {word: it for word, it in condition.items() if word != "lastHeartbeatTime"}


def _taint(body: Mapping[str, str]) -> Taint:
    return Taint(
        body["key"],
        body.get("value", ""),
        body.get("effect", ""),
        _moment(body.get("timeAdded")),
    )


def _moment(timestamp: str | None) -> float | None:
    return seconds(timestamp) if timestamp else None
