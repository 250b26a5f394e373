"""Scheduler and kubelet of one machine: it runs the pods of any cluster as local processes.

`flashplane up` runs it on the cluster in memory; tests run it on a real API server, so that the
operator meets real engines. Pods share this machine's network: each has an address of its own in
127.64.0.0/10, no two of one machine the same. Not done: images, cgroups, preStop, exec through the
API server.
"""

import ipaddress
import logging
import random
import threading
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from controlplane.cluster import (
    NODES,
    PODS,
    AlreadyExists,
    Cluster,
    ClusterError,
    Gone,
    Object,
    key_of,
)
from controlplane.local.kinds import BINDINGS
from controlplane.local.pod import MANAGER, Machine, PodRun
from controlplane.local.running import Processes
from controlplane.local.scheduling import node_for
from controlplane.local.volumes import Disks

_log = logging.getLogger(__name__)
ADDRESSES = ipaddress.ip_network("127.64.0.0/10")
WATCH_SECONDS = 2.0
PAUSE_SECONDS = 0.25
STOP_SECONDS = 10.0
HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True)
class LocalNode:
    """A node to pretend. `allocatable` counts its extended resources."""

    name: str
    allocatable: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)


class Kubelet:
    """Runs the pods of some nodes on this machine.

    Args:
        disks: where volumes, logs and the list of processes lie.
        environment: of every container, beneath its own variables.
        programs: what containers may run, since nothing confines them; None: anything.

    Attributes:
        missing_images: these cannot be pulled.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: list[LocalNode],
        *,
        disks: Disks,
        environment: Mapping[str, str],
        programs: Container[str] | None = None,
    ) -> None:
        self.missing_images: set[str] = set()
        self._cluster = cluster
        self._nodes = {node.name: node for node in nodes}
        self._machine = Machine(
            cluster,
            disks,
            Processes(disks.process_file),
            environment,
            self.missing_images.__contains__,
            programs,
        )
        self._lock = threading.RLock()
        self._pods: dict[str, Object] = {}
        self._runs: dict[str, PodRun] = {}
        self._addresses: dict[str, str] = {}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, name="kubelet pods", daemon=True),
            threading.Thread(target=self._schedule, name="kubelet scheduler", daemon=True),
        ]

    def start(self) -> None:
        """End what an earlier kubelet of these disks left, make the nodes, begin.

        Raises:
            ClusterError: the nodes cannot be made.
        """
        orphans = self._machine.processes.end_orphans()
        if orphans:
            _log.warning("orphans_ended", extra={"reason": f"{orphans} of an earlier kubelet"})
        for node in self._nodes.values():
            self._register(node)
        for thread in self._threads:
            thread.start()

    def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """End all processes within this time; the cluster is told nothing."""
        self._stopping.set()
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.end(min(grace_seconds, run.grace_seconds), tell=False)
        for run in runs:
            run.join(grace_seconds + 5)

    def lose(self, node: str) -> None:
        """Let a node die: its processes end at once, its pods are told of by nobody."""
        with self._lock:
            lost = self._nodes.pop(node)
            runs = [run for run in self._runs.values() if run.node == node]
        for run in runs:
            run.end(0, tell=False)
        for run in runs:
            run.join(STOP_SECONDS)
        self._tell_node(lost, ready="Unknown")

    def _register(self, node: LocalNode) -> None:
        labels = {HOSTNAME: node.name, **node.labels}
        with suppress(AlreadyExists):  # of an earlier kubelet
            self._cluster.create(NODES, {"metadata": {"name": node.name, "labels": labels}})
        # API servers taint new nodes as not ready; lifting that is another controller's work.
        change = {"metadata": {"labels": labels}, "spec": {"taints": None}}
        self._cluster.patch(NODES, node.name, change)
        self._tell_node(node, ready="True")

    def _tell_node(self, node: LocalNode, *, ready: str) -> None:
        amounts = {kind: str(count) for kind, count in node.allocatable.items()}
        amounts |= {"cpu": "1000", "memory": "10Ti", "pods": "1000"}
        status = {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletSays"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        }
        body = {"metadata": {"name": node.name}, "status": status}
        self._cluster.apply_status(NODES, body, manager=MANAGER)

    def _follow(self) -> None:
        """List and watch until stopped; whatever fails is begun anew."""
        while not self._stopping.is_set():
            try:
                version = self._list()
                while not self._stopping.is_set():
                    version = self._watch(version)
            except Gone:
                continue
            except ClusterError as error:
                _log.info("pods_listed_again", extra={"reason": type(error).__name__})
                self._stopping.wait(PAUSE_SECONDS)

    def _list(self) -> str:
        found: dict[str, Object] = {}
        page = self._cluster.list(PODS)
        version = page.resource_version
        while True:
            found |= {pod["metadata"]["uid"]: pod for pod in page.items}
            if not page.continuation:
                break
            page = self._cluster.list(PODS, continuation=page.continuation)
        with self._lock:
            vanished = [pod for uid, pod in self._pods.items() if uid not in found]
        for pod in vanished:
            self._forget(pod)
        for pod in found.values():
            self._see(pod)
        return version

    def _watch(self, version: str) -> str:
        events = self._cluster.watch(PODS, resource_version=version, timeout_seconds=WATCH_SECONDS)
        for event in events:
            version = event.object["metadata"]["resourceVersion"]
            if event.type == "DELETED":
                self._forget(event.object)
            elif event.type != "BOOKMARK":
                self._see(event.object)
        return version

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            if self._stopping.is_set():
                return
            self._pods[uid] = pod
            if pod["spec"].get("nodeName") not in self._nodes:
                return
            run = self._runs.get(uid)
            if run is None:
                run = self._begin(pod)
        if run is not None and "deletionTimestamp" in pod["metadata"]:
            run.end(pod["metadata"].get("deletionGracePeriodSeconds", run.grace_seconds))

    def _begin(self, pod: Object) -> PodRun | None:
        status = pod.get("status", {})
        if status.get("phase") in ("Succeeded", "Failed"):
            return None
        uid = pod["metadata"]["uid"]
        before = [it["restartCount"] + 1 for it in status.get("containerStatuses", ())]
        run = PodRun(pod, self._machine, self._address(uid), restarts=max(before, default=0))
        self._runs[uid] = run
        if "deletionTimestamp" in pod["metadata"]:
            run.end(0)  # an earlier kubelet ran it; nothing of it is left
        run.start()
        return run

    def _forget(self, pod: Object) -> None:
        """What the cluster has removed, perhaps by force, ends at once here."""
        uid = pod["metadata"]["uid"]
        with self._lock:
            self._pods.pop(uid, None)
            self._addresses.pop(uid, None)
            run = self._runs.pop(uid, None)
        if run is not None:
            run.end(0, tell=False)

    def _address(self, uid: str) -> str:
        """A random one: other kubelets of this machine choose theirs from the same net."""
        taken = set(self._addresses.values())
        while True:
            offset = random.randrange(1, ADDRESSES.num_addresses - 1)
            address = str(ADDRESSES[offset])
            if address not in taken:
                self._addresses[uid] = address
                return address

    def _schedule(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            with self._lock:
                waiting = [pod for pod in self._pods.values() if not pod["spec"].get("nodeName")]
            if not waiting:
                continue
            try:
                nodes = [
                    it for it in self._cluster.list(NODES).items if key_of(it)[1] in self._nodes
                ]
                for pod in waiting:
                    self._place(pod, nodes)
            except ClusterError as error:
                _log.info("pods_placed_later", extra={"reason": type(error).__name__})

    def _place(self, pod: Object, nodes: list[Object]) -> None:
        with self._lock:
            node = node_for(pod, nodes, self._pods.values())
        metadata = pod["metadata"]
        if node is None or "deletionTimestamp" in metadata:
            return
        self._cluster.create(
            BINDINGS,
            {
                "metadata": {word: metadata[word] for word in ("namespace", "name")},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            },
        )
        with self._lock:  # until the watch tells, its resources are not given twice
            known = self._pods.get(metadata["uid"])
            if known is not None and not known["spec"].get("nodeName"):
                self._pods[metadata["uid"]] = {**known, "spec": {**known["spec"], "nodeName": node}}
