"""The deployments' controller over any cluster; the test plays the replicas' controller."""

from typing import Any

from controlplane.cluster import NAMESPACES, Cluster, ClusterError, Object
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS
from controlplane.crd.base import timestamp as at
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.capacity.stock import Stock
from controlplane.operator.deployment.controller import (
    BY_OWNER,
    Caches,
    DeploymentRounds,
    owner_of_replica,
)
from controlplane.operator.manifests.tenant import TenantSettings
from controlplane.operator.runtime.controller import Controller
from controlplane.operator.runtime.executor import Executor
from controlplane.operator.runtime.queue import WorkQueue
from controlplane.operator.signals import Signals
from controlplane.operator.tenants import reading
from controlplane.watching.cache import Cache
from controlplane.watching.reflector import Reflector

TINY = GPUConfiguration(
    id="cpu-tiny", gpu="CPU", architecture="cpu", memory_gib=8, resource="flashplane.io/tiny"
)


def spec(**parts: Any) -> Object:
    """Return a pool's spec for the tiny model, one replica unless `scaling` is given."""
    base: Object = {
        "path": "serverless",
        "configurations": ["cpu-tiny"],
        "weights": {"pvc": {"claim": "tiny"}},
    }
    return {**base, **({} if "scaling" in parts else {"replicas": 1}), **parts}


class Recorded:
    """A cluster whose writes are counted."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in ("create", "apply", "apply_status", "patch", "delete"):
            return method

        def call(resource: Any, *args: Any, **kwargs: Any) -> Any:
            self.writes.append(f"{name} {resource.kind}")
            return method(resource, *args, **kwargs)

        return call


class DeploymentLoop:
    """A running controller; `stop` ends it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.operator = Recorded(cluster)
        self.signals = Signals()
        self.catalogue = {TINY.id: TINY}
        caches = Caches(
            Cache(DEPLOYMENTS, InferenceDeployment.of),
            Cache(REPLICAS, Replica.of, indexes={BY_OWNER: owner_of_replica}),
            Cache(NAMESPACES, lambda body: body),
        )
        endpoints = Cache(ENDPOINTS, GPUEndpoint.of)
        every = [caches.deployments, endpoints, caches.replicas, caches.namespaces]
        self.queue = WorkQueue()
        self.rounds = DeploymentRounds(
            caches=caches,
            stock=Stock(),
            signals=lambda: self.signals,
            catalogue=lambda: self.catalogue,
            namespaces=reading.Namespaces(
                cluster,
                TenantSettings("flashplane"),
                reading.Caches(caches.namespaces, caches.deployments, endpoints),
                lambda: self.catalogue,
            ),
            queue=self.queue,
        )
        self.rounds.subscribe()
        self.reflectors = [Reflector(cluster, cache, watch_seconds=2) for cache in every]
        executor = Executor(self.operator, every)
        self.controller = Controller(
            "deployments", self.rounds.reconcile, executor, workers=2, queue=self.queue
        )
        for reflector in self.reflectors:
            reflector.start()
        assert all(cache.synced.wait(20) for cache in every)
        self.controller.start()

    def stop(self) -> None:
        self.controller.stop()
        for reflector in self.reflectors:
            reflector.stop()
        assert self.controller.join(10)
        assert all(reflector.join(10) for reflector in self.reflectors)

    def create(self, name: str, **parts: Any) -> None:
        body = InferenceDeployment.body(self.namespace, name, spec=spec(**parts))
        self.cluster.create(DEPLOYMENTS, body)

    def change(self, name: str, **parts: Any) -> None:
        self.cluster.patch(DEPLOYMENTS, name, {"spec": parts}, namespace=self.namespace)

    def deployment(self, name: str) -> InferenceDeployment:
        return InferenceDeployment.of(self.cluster.get(DEPLOYMENTS, name, namespace=self.namespace))

    def replicas(self) -> list[Replica]:
        listing = self.cluster.list(REPLICAS, namespace=self.namespace)
        return [Replica.of(body) for body in listing.items]

    def condition(self, name: str, type: str) -> tuple[str, str]:
        found = [it for it in self.deployment(name).status.conditions if it.type == type]
        return (found[0].status, found[0].reason) if found else ("", "")

    def live_on(self) -> bool:
        """Let every replica take its next step at once; return whether none had one to take."""
        rest = True
        for replica in self.replicas():
            rest = self._step(replica) and rest
        return rest

    def serves(self, name: str, count: int) -> bool:
        """Let replicas live on; return whether so many serve and the status says so."""
        self.live_on()
        return self.deployment(name).status.serving == count

    def _step(self, replica: Replica) -> bool:
        if replica.deleting:
            if not replica.finalized:
                self._patch(replica, {"metadata": {"finalizers": None}})
            return False
        status: Object = {"phase": Phase.SERVING.value, "observedGeneration": replica.generation}
        status["placements"] = [{"node": "n", "gpus": 1}]
        status["servingSince"] = replica.status.serving_since or at(replica.created_at + 1)
        if replica.spec.drain:
            status |= {"phase": Phase.RELEASED.value, "placements": []}
        before = replica.status
        if (before.phase, before.observed_generation) == (status["phase"], replica.generation):
            return True
        body = Replica.body(replica.namespace, replica.name, status=status)
        self.cluster.apply_status(REPLICAS, body, manager="test-replicas")
        return False

    def _patch(self, replica: Replica, change: Object) -> None:
        try:
            self.cluster.patch(REPLICAS, replica.name, change, namespace=replica.namespace)
        except ClusterError:
            return  # it has gone meanwhile
