"""Stands in for thousands of kubelets: pods get their node, run at once and end when asked to."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from controlplane.cluster import (
    PODS,
    AlreadyExists,
    ClusterError,
    Conflict,
    NotFound,
    Object,
    Resource,
)
from controlplane.kube import Kube
from controlplane.watching.cache import Cache, Change
from controlplane.watching.reflector import Reflector

BINDINGS = Resource("", "v1", "bindings", "Binding")
WORKERS = 6
RETRIES = 5
CLEAN = json.dumps(  # what a check of one GPU says that found nothing
    {"gpu_uuids": ["GPU-0"], "foreign_pids": 0, "memory_used_mib": 0, "quick_test": "passed"}
)


class Kubelets:
    """Follows all pods of a cluster."""

    def __init__(self, cluster: Kube) -> None:
        self._cluster = cluster
        self.pods: Cache[Object] = Cache(PODS, lambda body: body)
        self._reflector = Reflector(cluster, self.pods)
        self._pool = ThreadPoolExecutor(WORKERS)
        self.pods.subscribe(self._changed)

    def start(self) -> None:
        """Begin."""
        self._reflector.start()
        assert self.pods.synced.wait(60)

    def stop(self) -> None:
        """End; the client must be closed first."""
        self._reflector.stop()
        self._pool.shutdown(cancel_futures=True)

    def _changed(self, change: Change) -> None:
        if change.new is not None:
            with suppress(RuntimeError):  # stopped
                self._pool.submit(self._serve, change.new)

    def _serve(self, pod: Object) -> None:
        for _ in range(RETRIES):
            try:
                self._bring_on(pod)
                return
            except (NotFound, Conflict, AlreadyExists):
                return
            except ClusterError:
                continue

    def _bring_on(self, pod: Object) -> None:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        if "deletionTimestamp" in metadata:
            self._cluster.delete(
                PODS, name, namespace=namespace, uid=metadata["uid"], grace_seconds=0
            )
        elif not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": _wanted_node(pod)}
            about = {"namespace": namespace, "name": name}
            self._cluster.create(BINDINGS, {"metadata": about, "target": target})
        elif pod.get("status", {}).get("phase") == "Pending":
            about = {"namespace": namespace, "name": name}
            body = {"metadata": about, "status": _status(pod)}
            self._cluster.apply_status(PODS, body, manager="kubelet")


def _wanted_node(pod: Object) -> str:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(terms[0]["matchExpressions"][0]["values"][0])


def _status(pod: Object) -> Object:
    started = pod["metadata"]["creationTimestamp"]
    ended = {"exitCode": 0, "message": CLEAN, "startedAt": started, "finishedAt": started}
    runs = pod["spec"].get("restartPolicy", "Always") == "Always"
    state: Object = {"running": {"startedAt": started}} if runs else {"terminated": ended}
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running" if runs else "Succeeded",
        "podIP": "127.64.0.1",
        "podIPs": [{"ip": "127.64.0.1"}],
        "startTime": started,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": started} for kind in kinds
        ],
        "initContainerStatuses": [
            _container(it, {"terminated": ended}) for it in pod["spec"].get("initContainers", ())
        ],
        "containerStatuses": [_container(it, state) for it in pod["spec"]["containers"]],
    }


def _container(container: Object, state: Object) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": state,
    }
