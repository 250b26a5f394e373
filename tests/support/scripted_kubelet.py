"""Nodes and their kubelets as a script: pods go one step further whenever the test says so.

Processes are only remembered, with their true lives, for what is said of them to be compared with.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controlplane.cluster import NODES, PODS, Cluster, ClusterError, Object, key_of
from controlplane.crd.base import REPLICA_LABEL, seconds, timestamp
from controlplane.local.kinds import BINDINGS
from controlplane.local.scheduling import node_for
from controlplane.operator.bare.pods import SCRUB
from controlplane.operator.bare.proof import Report

NOT_READY_SECONDS = 40.0  # a kubelet may be silent for so long
CLEAN = Report(gpu_uuids=[], foreign_pids=0, memory_used_mib=0, quick_test="absent")


@dataclass
class Process:
    """What runs in a pod's containers. `ended_at` None: it runs."""

    replica: str  # namespace/name
    address: str
    started_at: float
    ready: bool = False
    ended_at: float | None = None


def node_body(name: str, gpus: int, *, spot: bool = False) -> Object:
    labels = {"kubernetes.io/hostname": name}
    if spot:
        labels["flashplane.io/spot"] = "true"
    offered = {"flashplane.io/tiny": str(gpus), "cpu": "64", "memory": "512Gi"}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": offered, "conditions": [_condition("Ready", True, 0.0)]},
    }


@dataclass
class Kubelets:
    """All nodes. `ended` is called with every process that ends, and whether its pod was asked to.

    Attributes:
        unpullable: images that never come.
        dead: nodes whose machine stopped without a word, and when.
    """

    cluster: Cluster
    now: Callable[[], float]
    ended: Callable[[Process, bool], None]
    unpullable: set[str] = field(default_factory=set)
    dead: dict[str, float] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)  # by pod uid, the last one of each
    lives: list[Process] = field(default_factory=list)
    _restarts: dict[str, int] = field(default_factory=dict)
    _addresses: int = 0

    def step(self) -> None:
        """Let every pod go one step further."""
        self._tell_dead_nodes()
        nodes = {it["metadata"]["name"]: it for it in self.cluster.list(NODES).items}
        pods = self.cluster.list(PODS).items
        self._end_what_has_no_pod({it["metadata"]["uid"] for it in pods})
        for pod in pods:
            node = pod["spec"].get("nodeName")
            if not node:
                self._schedule(pod, [it for name, it in nodes.items() if name not in self.dead])
            elif node in nodes and node not in self.dead:
                self._go_on(pod)

    def running(self) -> list[Process]:
        return [it for it in self.lives if it.ended_at is None]

    def crash(self, index: int) -> None:
        """End one of the processes by itself; it is started again with the next steps."""
        alive = self.running()
        if not alive:
            return
        process = alive[index % len(alive)]
        self._end(process, asked=False)
        (uid,) = [uid for uid, it in self.processes.items() if it is process]
        self._restarts[uid] = self._restarts.get(uid, 0) + 1
        for pod in self.cluster.list(PODS).items:
            if pod["metadata"]["uid"] == uid:
                ended = {"terminated": {"exitCode": 1, "finishedAt": timestamp(self.now())}}
                waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
                self._tell(pod, {"state": waiting, "lastState": ended}, ready=False)

    def node_goes(self, name: str) -> None:
        """Take a machine away, with its Node."""
        self._end_all(name)
        self.dead.pop(name, None)
        try:
            self.cluster.delete(NODES, name)
        except ClusterError:
            return

    def node_dies(self, name: str) -> None:
        """Stop a machine without a word: the API server hears of it much later."""
        if name not in self.dead:
            self._end_all(name)
            self.dead[name] = self.now()

    def node_comes(self, body: Object) -> None:
        """Add a machine, or one of the same name again."""
        name = body["metadata"]["name"]
        self.node_goes(name)
        self.cluster.create(NODES, body)

    def _tell_dead_nodes(self) -> None:
        for name, at in self.dead.items():
            if self.now() - at < NOT_READY_SECONDS:
                continue
            not_ready = {"conditions": [_condition("Ready", False, at + NOT_READY_SECONDS)]}
            self._write_status(NODES, {"metadata": {"name": name}}, not_ready)
            for pod in self.cluster.list(PODS).items:
                if pod["spec"].get("nodeName") == name and "status" in pod:
                    told = {**pod["status"], "conditions": [_condition("Ready", False, at)]}
                    self._write_status(PODS, pod, told)

    def _end_what_has_no_pod(self, uids: set[str]) -> None:
        for uid, process in self.processes.items():
            if uid not in uids and process.ended_at is None:
                self._end(process, asked=False)

    def _write_status(self, resource: Any, body: Object, status: Object) -> None:
        metadata = {k: v for k, v in body["metadata"].items() if k in ("name", "namespace")}
        try:
            self.cluster.apply_status(
                resource, {"metadata": metadata, "status": status}, manager="kubelet"
            )
        except ClusterError:
            return  # it has gone meanwhile

    def _schedule(self, pod: Object, nodes: list[Object]) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            return
        node = node_for(pod, nodes, self.cluster.list(PODS).items)
        if node is not None:
            namespace, name = key_of(pod)
            body = {"metadata": {"namespace": namespace, "name": name}, "target": {"name": node}}
            self.cluster.create(BINDINGS, body)

    def _go_on(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        process = self.processes.get(uid)
        if "deletionTimestamp" in pod["metadata"]:
            if process is not None and process.ended_at is None:
                self._end(process, asked=True)
            namespace, name = key_of(pod)
            self.cluster.delete(PODS, name, namespace=namespace, grace_seconds=0)
        elif pod["spec"]["containers"][0]["image"] in self.unpullable:
            self._tell(pod, {"state": {"waiting": {"reason": "ImagePullBackOff"}}}, ready=False)
        elif pod["spec"]["containers"][0]["name"] == SCRUB:
            ended = {"terminated": {"exitCode": 0, "message": CLEAN.encode()}}
            self._tell(pod, {"state": ended}, ready=False)
        elif process is None or process.ended_at is not None:
            self._begin(pod, process)
        elif not process.ready:
            process.ready = True
            self._tell(pod, {"state": _running(process), "started": True}, ready=True)

    def _begin(self, pod: Object, before: Process | None) -> None:
        if before is not None and timestamp(before.started_at) == timestamp(self.now()):
            return  # no container is started anew within the same second
        self._addresses += 1
        address = before.address if before is not None else f"10.0.0.{self._addresses}"
        owner = f"{pod['metadata']['namespace']}/{pod['metadata']['labels'][REPLICA_LABEL]}"
        process = Process(owner, address, seconds(timestamp(self.now())))
        self.processes[pod["metadata"]["uid"]] = process
        self.lives.append(process)
        self._tell(pod, {"state": _running(process)}, ready=False)

    def _tell(self, pod: Object, container: Object, *, ready: bool) -> None:
        uid = pod["metadata"]["uid"]
        process = self.processes.get(uid)
        count = {"restartCount": self._restarts.get(uid, 0)}
        checked = {"terminated": {"exitCode": 0, "message": CLEAN.encode()}}
        status = {
            "phase": "Running",
            "conditions": [_condition("Ready", ready, self.now())],
            "containerStatuses": [
                {"name": it["name"], **count, **container} for it in pod["spec"]["containers"]
            ],
            "initContainerStatuses": [
                {"name": it["name"], "state": checked, "restartCount": 0}
                for it in pod["spec"].get("initContainers", ())
            ],
        }
        if process is not None:
            status["podIP"] = process.address
        self._write_status(PODS, pod, status)

    def _end_all(self, node: str) -> None:
        for pod in self.cluster.list(PODS).items:
            process = self.processes.get(pod["metadata"]["uid"])
            on_it = pod["spec"].get("nodeName") == node
            if on_it and process is not None and process.ended_at is None:
                self._end(process, asked=False)

    def _end(self, process: Process, *, asked: bool) -> None:
        process.ended_at = self.now()
        self.ended(process, asked)


def _running(process: Process) -> Object:
    return {"running": {"startedAt": timestamp(process.started_at)}}


def _condition(type: str, value: bool, at: float) -> Object:
    return {"type": type, "status": str(value), "lastTransitionTime": timestamp(at)}
