"""What the kubelet tells of a pod's containers, whatever runs in them; pure."""

from collections.abc import Mapping
from typing import Any, Literal

from controlplane.cluster import Object
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase
from controlplane.operator.replica.workload import Progress

_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_NO_CONTAINER = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_TAKEN_AWAY = {"Evicted", "Preempting", "Preempted", "Shutdown", "NodeShutdown", "Terminated"}
_DISRUPTIONS = {"PreemptionByScheduler", "EvictionByEvictionAPI", "TerminationByKubelet"}
_GONE = {"NodeLost", "DeletionByTaintManager", "DeletionByPodGC"}

Kind = Literal["initContainerStatuses", "containerStatuses"]


def find(status: Object, kind: Kind, name: str) -> Object | None:
    """Return what a pod's status tells of one container; None before it tells anything."""
    return next((it for it in status.get(kind, ()) if it["name"] == name), None)


def last_end(container: Object) -> Mapping[str, Any] | None:
    """Return how a container that is not running has ended; None if it runs or never did."""
    state = container.get("state", {})
    if "running" in state:
        return None
    ended: Mapping[str, Any] | None = state.get("terminated") or container.get("lastState", {}).get(
        "terminated"
    )
    return ended


def lost(status: Object, phase: Phase) -> Progress | None:
    """Return why the cluster has taken a pod away, or lost it; None if it has not."""
    why = {status.get("reason", "")}
    for condition in status.get("conditions", ()):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            why.add(condition.get("reason", ""))
    message = status.get("message", "") or ", ".join(sorted(filter(None, why)))
    if why & _GONE:
        return Progress(phase, Reason.NODE_LOST, message)
    if why & (_TAKEN_AWAY | _DISRUPTIONS):
        return Progress(phase, Reason.PREEMPTED, message)
    if "DeadlineExceeded" in why:
        return Progress(phase, Reason.START_TIMED_OUT, message)
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        # The kubelet refused it: its GPUs, or the node, are not as the scheduler thought.
        return Progress(phase, Reason.WAITING_FOR_CAPACITY, message)
    return None


def no_start(container: Object, phase: Phase, otherwise: Reason) -> Progress | None:
    """Return why a container cannot be started; None if it can.

    Args:
        otherwise: the reason where it is not its image.
    """
    waiting = container.get("state", {}).get("waiting", {})
    why, message = waiting.get("reason", ""), waiting.get("message", "")
    text = f"{container['name']}: {message or why}"
    if why in _NO_IMAGE:
        return Progress(phase, Reason.IMAGE_UNAVAILABLE, text, why != "InvalidImageName")
    if why in _NO_CONTAINER:
        return Progress(phase, otherwise, text)
    return None
