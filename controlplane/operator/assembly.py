"""Puts an operator together: caches, controllers, the monitor, the publishers. Called by `main`.

Everything is made here and handed over; nothing below looks anything up.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.cluster import (
    CONFIG_MAPS,
    CRDS,
    EVENTS,
    LEADER_WORKER_SETS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    VOLUME_CLAIMS,
    Cluster,
    ClusterError,
    Object,
    Resource,
)
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, OWNER_LABEL, REPLICAS, TENANT_LABEL
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Replica
from controlplane.operator.bare.controller import EndpointRounds, owner_key
from controlplane.operator.bare.observed import Access
from controlplane.operator.bare.pods import BareSettings
from controlplane.operator.bare.ports import Exposure
from controlplane.operator.bare.volumes import VolumePublisher
from controlplane.operator.bare.workload import BareWorkload
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.capacity.stock import Stock
from controlplane.operator.catalogue import Tables
from controlplane.operator.deployment import controller as deployments
from controlplane.operator.deployment.pools import PoolPublisher
from controlplane.operator.health.board import Board
from controlplane.operator.manifests.settings import PodSettings
from controlplane.operator.manifests.tenant import TenantSettings
from controlplane.operator.manifests.workload import EngineWorkload
from controlplane.operator.replica import controller as replicas
from controlplane.operator.replica.monitor import Monitor
from controlplane.operator.replica.publisher import Publisher
from controlplane.operator.replica.workload import Workload
from controlplane.operator.runtime.controller import Controller
from controlplane.operator.runtime.executor import Executor
from controlplane.operator.runtime.queue import WorkQueue
from controlplane.operator.runtime.telling import Teller
from controlplane.operator.tenants import reading
from controlplane.settings import Settings
from controlplane.store import Store
from controlplane.watching.cache import Cache, Index
from controlplane.watching.reflector import Reflector

NODE_EVENTS_NAMESPACE = "default"  # where Events about nodes are


@dataclass(frozen=True)
class Clocks:
    """What time it is: seconds since 1970, and a steady count of seconds for waits."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


_CLOCKS = Clocks()


@dataclass
class Caches:
    """Everything the operator watches, with what feeds it."""

    cluster: Cluster
    reflectors: dict[Resource, Reflector]

    @classmethod
    def over(cls, cluster: Cluster, release_namespace: str) -> "Caches":
        """Return the caches of a cluster, not fed yet."""
        caches = cls(cluster, {})
        caches.watch(DEPLOYMENTS, InferenceDeployment.of)
        caches.watch(ENDPOINTS, GPUEndpoint.of)
        indexes = {
            deployments.BY_OWNER: deployments.owner_of_replica,
            replicas.BY_PHASE: replicas.phase_of_replica,
        }
        caches.watch(REPLICAS, Replica.of, indexes)
        caches.watch(PODS, _as_it_is, {replicas.BY_REPLICA: replicas.replica_of_pod})
        caches.watch(NODES, Node.of)
        caches.watch(NAMESPACES, _as_it_is)
        caches.watch(SERVICES, _as_it_is, labels=OWNER_LABEL)
        caches.watch(VOLUME_CLAIMS, _as_it_is, labels=OWNER_LABEL)
        caches.watch(CONFIG_MAPS, _as_it_is, namespace=release_namespace)
        caches.watch(EVENTS, _as_it_is, namespace=NODE_EVENTS_NAMESPACE)
        return caches

    def watch(
        self,
        resource: Resource,
        parse: Callable[[Object], Any],
        indexes: Mapping[str, Index] | None = None,
        **scope: str,
    ) -> None:
        """Add a cache; `scope` is a namespace or labels."""
        cache: Cache[Any] = Cache(resource, parse, indexes=indexes)
        self.reflectors[resource] = Reflector(self.cluster, cache, **scope)  # type: ignore[arg-type]

    def __getitem__(self, resource: Resource) -> Cache[Any]:
        return self.reflectors[resource].cache

    def watched_at(self, resource: Resource) -> float:
        """Return until when every change is known, in seconds since 1970."""
        return time.time() - self.reflectors[resource].age_seconds()


class Assembly:
    """The parts of one operator; `reflectors` and `parts` are what `main` runs."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        store: Store,
        may_write: Callable[[], bool],
        clocks: Clocks = _CLOCKS,
    ) -> None:
        self._settings = settings
        self._clocks = clocks
        self._leader_worker_sets = _is_installed(cluster, LEADER_WORKER_SETS)
        self.caches = Caches.over(cluster, settings.operator_namespace)
        every = [it.cache for it in self.caches.reflectors.values()]
        self._executor = Executor(cluster, every, may_write=may_write, clock=clocks.wall)
        self._tables = Tables(self.caches[CONFIG_MAPS], settings.operator_namespace)
        self._stock, self._board = Stock(), Board(clocks.wall)
        self._replica_queue = WorkQueue(clocks.steady)
        self._token = settings.engine_token.get_secret_value()
        self.replicas = self._replica_rounds()
        self.monitor = Monitor(
            self.replicas.targets,
            store,
            self._board,
            changed=self._replica_queue.add,
            engine_token=self._token,
        )
        self._publisher = Publisher(
            store,
            replicas=self.replicas.routed,
            pods=self.replicas.pods_of,
            engine=self.monitor.engine,
            watched_at=lambda: self.caches.watched_at(PODS),
        )
        self._namespaces = reading.Namespaces(
            cluster,
            self._tenant_settings(),
            reading.Caches(
                namespaces=self.caches[NAMESPACES],
                deployments=self.caches[DEPLOYMENTS],
                endpoints=self.caches[ENDPOINTS],
            ),
            self._tables.catalogue,
            clock=clocks.steady,
        )
        self._deployment_queue = WorkQueue(clocks.steady)
        self.deployments = self._deployment_rounds()
        self.endpoints = self._endpoint_rounds()
        self.controllers = self._controllers()
        self.parts: tuple[Monitor | Controller | Teller, ...] = (
            self.monitor,
            *self.controllers,
            *self._publishers(store),
        )
        self.reflectors = tuple(self.caches.reflectors.values())

    def _replica_rounds(self) -> replicas.ReplicaRounds:
        caches = self.caches
        engines = EngineWorkload(self._pod_settings())
        settings = self._settings
        bare = BareWorkload(BareSettings(settings.tools_image, settings.image_pull_secrets))
        workloads: dict[str, Workload] = {"serverless": engines, "dedicated": engines, "bare": bare}
        return replicas.ReplicaRounds(
            caches=replicas.Caches(
                replicas=caches[REPLICAS],
                pods=caches[PODS],
                nodes=caches[NODES],
                namespaces=caches[NAMESPACES],
                owners={it.kind: caches[it] for it in (DEPLOYMENTS, ENDPOINTS)},
                events=caches[EVENTS],
            ),
            stock=self._stock,
            board=self._board,
            signals=lambda: self.monitor.signals(),
            workloads=workloads,
            queue=self._replica_queue,
            end_told=lambda uid: self._publisher.has_told_end(uid),
            xid_actions=self._tables.xid_actions,
            clock=self._clocks.wall,
        )

    def _deployment_rounds(self) -> deployments.DeploymentRounds:
        caches = self.caches
        return deployments.DeploymentRounds(
            caches=deployments.Caches(
                deployments=caches[DEPLOYMENTS],
                replicas=caches[REPLICAS],
                namespaces=caches[NAMESPACES],
            ),
            stock=self._stock,
            signals=self.monitor.signals,
            catalogue=self._tables.catalogue,
            namespaces=self._namespaces,
            queue=self._deployment_queue,
            clock=self._clocks.wall,
        )

    def _endpoint_rounds(self) -> EndpointRounds:
        caches, settings = self.caches, self._settings
        return EndpointRounds(
            endpoints=caches[ENDPOINTS],
            replicas=caches[REPLICAS],
            pods=caches[PODS],
            services=caches[SERVICES],
            claims=caches[VOLUME_CLAIMS],
            namespaces=self._namespaces,
            catalogue=self._tables.catalogue,
            provable=bool(settings.tools_image),
            access=Access(settings.ssh_public_host, settings.ssh_fingerprint),
            exposure=Exposure(
                settings.bare_domain,
                settings.bare_ingress_class,
                settings.bare_tls_secret,
            ),
            clock=self._clocks.wall,
        )

    def _controllers(self) -> tuple[Controller, ...]:
        caches, workers = self.caches, self._settings.operator_workers
        # Replicas first: they keep up what the others' rounds read.
        self.replicas.subscribe()
        self.deployments.subscribe()
        caches[CONFIG_MAPS].subscribe(lambda change: self.deployments.ask_all())
        replica = Controller(
            "replicas",
            self.replicas.reconcile,
            self._executor,
            workers=workers,
            queue=self._replica_queue,
        )
        deployment = Controller(
            "deployments",
            self.deployments.reconcile,
            self._executor,
            workers=workers,
            queue=self._deployment_queue,
        )
        endpoint = Controller(
            "endpoints",
            self.endpoints.plan,
            self._executor,
            workers=workers,
            queue=WorkQueue(self._clocks.steady),
        )
        endpoint.on_change(caches[ENDPOINTS])
        for resource in (REPLICAS, PODS, SERVICES, VOLUME_CLAIMS):
            endpoint.on_change(caches[resource], owner_key)
        endpoint.on_change(caches[NAMESPACES], self.endpoints.in_namespace)
        return replica, deployment, endpoint

    def _publishers(self, store: Store) -> tuple[Teller, ...]:
        pools = PoolPublisher(store, self.deployments.records)
        volumes = VolumePublisher(
            store,
            claims=self.caches[VOLUME_CLAIMS].list,
            tenant_of=self._tenant_of,
            watched_at=lambda: self.caches.watched_at(VOLUME_CLAIMS),
        )
        return (
            Teller("replicas", self._publisher.tell),
            Teller("pools", pools.publish),
            Teller("volumes", volumes.publish),
        )

    def _tenant_of(self, namespace: str) -> str:
        body = self.caches[NAMESPACES].body("", namespace)
        return str(body["metadata"].get("labels", {}).get(TENANT_LABEL, "")) if body else ""

    def _pod_settings(self) -> PodSettings:
        settings = self._settings
        defaults = PodSettings()
        return PodSettings(
            images=settings.engine_images or defaults.images,
            image_pull_secrets=settings.image_pull_secrets,
            cache_path=settings.weight_cache_path,
            cache_namespaces=frozenset({settings.operator_namespace}),
            engine_token=bool(self._token),
            leader_worker_sets=self._leader_worker_sets,
        )

    def _tenant_settings(self) -> TenantSettings:
        settings = self._settings
        return TenantSettings(
            release_namespace=settings.operator_namespace,
            operator_account=settings.operator_account,
            tenant_role=settings.tenant_role,
            ssh_account=settings.ssh_account,
            ssh_role=f"{settings.tenant_role}-ssh",
            weights_cidrs=settings.weights_cidrs,
            ingress_namespace=settings.bare_ingress_namespace,
            engine_token=self._token,
        )


def _is_installed(cluster: Cluster, resource: Resource) -> bool:
    """Return whether a kind that others bring is there; while that cannot be told, it is not."""
    try:
        cluster.get(CRDS, f"{resource.plural}.{resource.group}")
    except ClusterError:
        return False
    return True


def _as_it_is(body: Object) -> Object:
    return body
