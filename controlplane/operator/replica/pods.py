"""What a replica's pods say, whatever runs in them."""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.cluster import PODS, Object
from controlplane.crd.base import seconds
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.replica.workload import Manifest


def names(manifests: Sequence[Manifest]) -> set[str]:
    """Return the names of the pods among `manifests`; empty where another kind makes them."""
    return {body["metadata"]["name"] for resource, body in manifests if resource is PODS}


def node_of(pod: Object) -> str:
    """Return the node a pod is bound to; empty before."""
    name: str = pod.get("spec", {}).get("nodeName", "")
    return name


def going(pod: Object) -> bool:
    """Whether its deletion has been asked for."""
    return "deletionTimestamp" in pod["metadata"]


def goes_at(pod: Object) -> float:
    """Return when a pod whose deletion was asked for is killed, seconds since 1970 UTC."""
    return seconds(pod["metadata"]["deletionTimestamp"])


def disrupted(pod: Object) -> str:
    """Return why Kubernetes is about to end it; empty: it is not."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return str(condition.get("message") or condition.get("reason", "disrupted"))
    return ""


def made_at(pods: Iterable[Object]) -> float:
    """Return when the oldest of them was made, seconds since 1970 UTC; 0 without any."""
    return min((seconds(pod["metadata"]["creationTimestamp"]) for pod in pods), default=0.0)


def started_at(pods: Iterable[Object]) -> float | None:
    """Return since when every container of them has run without a break; None if one does not."""
    newest = 0.0
    for pod in pods:
        statuses = pod.get("status", {}).get("containerStatuses", ())
        if not statuses:
            return None
        for status in statuses:
            running = status.get("state", {}).get("running")
            if running is None or "startedAt" not in running:
                return None
            newest = max(newest, seconds(running["startedAt"]))
    return newest or None


def restarts_itself(pods: Iterable[Object], limit: int) -> bool:
    """Whether the kubelet starts their containers again, and has done so less than `limit` times.

    That keeps what they have fetched; new pods may have to fetch it again.
    """
    for pod in pods:
        status = pod.get("status", {})
        if status.get("phase") == "Failed" or going(pod):
            return False
        counts = [it.get("restartCount", 0) for it in status.get("containerStatuses", ())]
        if not counts or max(counts) >= limit:
            return False
    return True


def address(pods: Iterable[Object]) -> str:
    """Return the first node rank's IP address; empty before it has one."""
    first = min(pods, key=lambda pod: (len(pod["metadata"]["name"]), pod["metadata"]["name"]))
    ip: str = first.get("status", {}).get("podIP", "")
    return ip


def vanished(pod: Object, nodes: Mapping[str, Node]) -> bool:
    """Whether nothing of a pod can still run though it is listed: its machine is gone or off."""
    name = node_of(pod)
    if not name:
        return False
    node = nodes.get(name)
    return node is None or node.out_of_service
