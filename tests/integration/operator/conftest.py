"""The replicas' half of the operator over a cluster in memory, whose pods are real processes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import http_engine
from support.polling import until

from controlplane.cluster import NAMESPACES, NODES, PODS, NotFound, Object
from controlplane.crd.base import DEPLOYMENTS, FINALIZER, OWNER_LABEL, REPLICA_LABEL, REPLICAS
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.engine import ClaimSource, EngineSpec, WeightsSpec
from controlplane.crd.replica import Phase, Replica, ReplicaSpec
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.local.objects import LocalCluster
from controlplane.local.volumes import Disks
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.capacity.stock import Stock
from controlplane.operator.health.board import Board
from controlplane.operator.manifests import progress
from controlplane.operator.replica.controller import (
    BY_PHASE,
    BY_REPLICA,
    Caches,
    ReplicaRounds,
    phase_of_replica,
    replica_of_pod,
)
from controlplane.operator.replica.monitor import Monitor
from controlplane.operator.replica.publisher import Publisher
from controlplane.operator.replica.workload import Manifest, Progress
from controlplane.operator.runtime.controller import Controller
from controlplane.operator.runtime.executor import Executor
from controlplane.operator.runtime.queue import WorkQueue
from controlplane.operator.runtime.telling import Teller
from controlplane.operator.signals import Signals
from controlplane.store import Store, open_store
from controlplane.watching.cache import Cache
from controlplane.watching.reflector import Reflector

TINY = "flashplane.io/tiny"
SECONDS = 20.0
WEIGHTS = {"pvc": {"claim": "tiny"}}


class ProcessWorkload:
    """Pods that run `http_engine`."""

    probed = True
    needs_scrub = False

    def manifests(self, replica: Replica) -> list[Manifest]:
        (placement,) = replica.status.placements
        ip = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        check = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1}
        container = {
            "name": "engine",
            "image": "any",
            "command": [sys.executable, http_engine.__file__, "$(POD_IP)", replica.spec.model],
            "env": [ip],
            "resources": {"limits": {TINY: str(placement.gpus)}},
            "readinessProbe": check,
        }
        metadata = {
            "name": f"{replica.name}-0",
            "namespace": replica.namespace,
            "labels": {REPLICA_LABEL: replica.name},
        }
        spec = {
            "nodeSelector": {"kubernetes.io/hostname": placement.node},
            "containers": [container],
            "terminationGracePeriodSeconds": 2,
        }
        return [(PODS, {"metadata": metadata, "spec": spec})]

    def stage(self, replica: Replica, pods: list[Object]) -> Progress:  # type: ignore[override]
        return progress.stage(pods)

    def scrub_manifests(self, replica: Replica) -> list[Manifest]:
        return []

    def scrub_proof(self, replica: Replica, pods: object, now: float) -> ScrubProof | None:
        return None


@dataclass
class Site:
    """A cluster with the operator's half at work on it."""

    cluster: LocalCluster
    store: Store
    writes: list[str]

    def create(self, name: str, **changes: object) -> None:
        spec = ReplicaSpec(
            owner_kind="InferenceDeployment",
            owner="shop",
            path="dedicated",
            tenant="acme",
            model="flash@shop",
            revision="r1",
            configuration=GPUConfiguration(
                id="tiny", gpu="none", architecture="cpu", memory_gib=1, resource=TINY
            ),
            engine=EngineSpec(),
            weights=WeightsSpec(pvc=ClaimSource(claim="tiny")),
        ).model_copy(update=changes)
        metadata = {"finalizers": [FINALIZER], "labels": {OWNER_LABEL: "shop"}}
        body = Replica.body("own", name, metadata=metadata, spec=spec.wire())
        self.cluster.create(REPLICAS, body)

    def replica(self, name: str) -> Replica | None:
        try:
            return Replica.of(self.cluster.get(REPLICAS, name, namespace="own"))
        except NotFound:
            return None

    def in_phase(self, name: str, phase: Phase) -> Replica:
        found: list[Replica] = []

        def is_there() -> bool:
            replica = self.replica(name)
            found[:] = [replica] if replica is not None else []
            return replica is not None and replica.status.phase is phase

        until(is_there, seconds=SECONDS, what=f"{name} to be {phase}")
        return found[0]

    def gone(self, name: str) -> None:
        until(lambda: self.replica(name) is None, seconds=SECONDS, what=f"{name} to go")

    def ask(self, name: str, **spec: object) -> None:
        self.cluster.patch(REPLICAS, name, {"spec": spec}, namespace="own")

    def pods(self) -> list[Object]:
        return self.cluster.list(PODS, namespace="own").items


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> Iterator[Site]:
    """One node of two tiny GPUs, a tenant's namespace, and everything running."""
    writes: list[str] = []

    def count(call: object, moment: str) -> None:
        verb = getattr(call, "verb", "")
        if moment == "after" and verb not in ("list", "watch", "get"):
            writes.append(f"{verb} {getattr(call, 'name', '')}")

    cluster = LocalCluster(faults=count)
    cluster.create(NAMESPACES, {"metadata": {"name": "own"}})
    shop = {
        "path": "dedicated",
        "tenant": "acme",
        "configurations": ["tiny"],
        "weights": WEIGHTS,
        "replicas": 1,
    }
    cluster.create(DEPLOYMENTS, {"metadata": {"name": "shop", "namespace": "own"}, "spec": shop})
    kubelet = Kubelet(
        cluster,
        [LocalNode("local", {TINY: 2})],
        disks=Disks(tmp_path / "disks", {}),
        environment={"PATH": os.environ["PATH"]},
    )
    kubelet.start()
    store = open_store(redis_url)
    stop = _start_operator(cluster, store)
    yield Site(cluster, store, writes)
    stop()
    kubelet.stop(grace_seconds=1)
    cluster.close()
    store.close()


def _start_operator(cluster: LocalCluster, store: Store) -> Callable[[], None]:
    caches = Caches(
        replicas=Cache(REPLICAS, Replica.of, indexes={BY_PHASE: phase_of_replica}),
        pods=Cache(PODS, dict, indexes={BY_REPLICA: replica_of_pod}),
        nodes=Cache(NODES, Node.of),
        namespaces=Cache(NAMESPACES, dict),
        owners={"InferenceDeployment": Cache(DEPLOYMENTS, dict)},
    )
    every = [caches.replicas, caches.pods, caches.nodes, caches.namespaces, *caches.owners.values()]
    queue, board = WorkQueue(), Board()
    monitor: Monitor | None = None

    def signals() -> Signals:
        assert monitor is not None
        return monitor.signals()

    workloads = {"dedicated": ProcessWorkload(), "serverless": ProcessWorkload()}
    rounds = ReplicaRounds(caches, Stock(), board, signals, workloads, queue)
    rounds.subscribe()
    monitor = Monitor(rounds.targets, store, board, changed=queue.add)
    publisher = Publisher(
        store,
        replicas=rounds.routed,
        pods=rounds.pods_of,
        engine=monitor.engine,
        watched_at=time.time,
    )
    controller = Controller("replicas", rounds.reconcile, Executor(cluster, every), queue=queue)
    reflectors = [Reflector(cluster, cache, watch_seconds=0.5) for cache in every]
    for reflector in reflectors:
        reflector.start()
    assert all(cache.synced.wait(5) for cache in every)
    parts = [monitor, Teller("replicas", publisher.tell), controller]
    for part in parts:
        part.start()

    def stop() -> None:
        for it in (*parts, *reflectors):
            it.stop()
        assert all(it.join(10) for it in (*parts, *reflectors))

    return stop
