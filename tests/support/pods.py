"""Pods for tests: shell scripts as containers, and waiting for what becomes of them."""

from typing import Any

from support.polling import until

from controlplane.cluster import PODS, Cluster, NotFound, Object

SECONDS = 20.0


def script(text: str, **more: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": "it", "image": "any", "command": ["sh", "-c", text], **more}


def a_pod(name: str, *containers: Object, namespace: str = "own", **spec: Any) -> Object:
    """A pod of containers."""
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": list(containers),
            **spec,
        },
    }


def waited(cluster: Cluster, name: str, what: Any, *, namespace: str = "own") -> Object:
    """The pod, as soon as `what(status)` holds."""
    last: Object = {}

    def holds() -> bool:
        nonlocal last
        last = cluster.get(PODS, name, namespace=namespace)
        return bool(what(last["status"]))

    until(holds, seconds=SECONDS, what=f"pod {name}")
    return last


def in_phase(cluster: Cluster, name: str, phase: str, *, namespace: str = "own") -> Object:
    """The pod, as soon as it is in a phase."""
    return waited(cluster, name, lambda it: it.get("phase") == phase, namespace=namespace)


def is_ready(status: Object) -> bool:
    """Whether a pod's status says that it is ready."""
    return any(
        it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", ())
    )


def gone(cluster: Cluster, name: str, *, namespace: str = "own") -> None:
    """Wait until a pod is not there."""

    def is_gone() -> bool:
        try:
            cluster.get(PODS, name, namespace=namespace)
        except NotFound:
            return True
        return False

    until(is_gone, seconds=SECONDS, what=f"pod {name} to go")


def only(status: Object) -> Object:
    """The status of the one container; an empty one before the kubelet tells any."""
    empty: Object = {"restartCount": 0, "state": {}, "lastState": {}}
    (found,) = status.get("containerStatuses", [empty])
    return found
