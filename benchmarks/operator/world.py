"""The cluster that the operator meets: nodes, tenants' namespaces, a catalogue and endpoints."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from controlplane.cluster import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    SERVICE_ACCOUNTS,
    AlreadyExists,
    Object,
    Resource,
)
from controlplane.crd.base import ENDPOINTS, TENANT_LABEL
from controlplane.crd.configuration import CATALOGUE_NAME
from controlplane.kube import Kube

RELEASE = "flashplane"
GPUS_PER_NODE = 8
ENDPOINTS_PER_TENANT = 100
CONFIGURATION = {
    "id": "h200-x1",
    "gpu": "H200",
    "architecture": "hopper",
    "count": 1,
    "memory_gib": 140.4,
    "cpu": "4",
    "memory": "32Gi",
}
WRITERS = 8
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """So many endpoints with one GPU each, and just as many GPUs and an eighth to spare."""

    endpoints: int

    def tenants(self) -> list[str]:
        """Names of tenants, each its namespace's too."""
        return [f"tenant-{number}" for number in range(-(-self.endpoints // ENDPOINTS_PER_TENANT))]

    def every_key(self) -> list[tuple[str, str]]:
        """Namespace and name of every endpoint."""
        return [
            (f"tenant-{number // ENDPOINTS_PER_TENANT}", f"box-{number}")
            for number in range(self.endpoints)
        ]

    def write(self, cluster: Kube) -> None:
        """Make everything but the endpoints."""
        nodes = -(-self.endpoints * 9 // (8 * GPUS_PER_NODE))
        names = [RELEASE, *self.tenants()]
        _all(lambda name: _create(cluster, NAMESPACES, _namespace(name)), names)
        _all(lambda name: _create(cluster, SERVICE_ACCOUNTS, _account(name)), names)
        _all(lambda number: self._write_node(cluster, f"node-{number}"), range(nodes))
        catalogue = json.dumps({"configurations": [CONFIGURATION]})  # JSON is YAML
        metadata = {"namespace": RELEASE, "name": CATALOGUE_NAME}
        _create(cluster, CONFIG_MAPS, {"metadata": metadata, "data": {"catalogue.yaml": catalogue}})

    def write_endpoints(self, cluster: Kube) -> None:
        """Ask for every endpoint."""
        _all(lambda key: _create(cluster, ENDPOINTS, _endpoint(*key)), self.every_key())

    def _write_node(self, cluster: Kube, name: str) -> None:
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
        _create(cluster, NODES, {"metadata": metadata})
        size = {"cpu": "64", "memory": "1Ti", "pods": "250", "nvidia.com/gpu": str(GPUS_PER_NODE)}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        }
        status = {"capacity": size, "allocatable": size, "conditions": [ready]}
        cluster.apply_status(NODES, {"metadata": metadata, "status": status}, manager="kubelet")
        # The API server taints a new node until somebody says that it is ready.
        cluster.patch(NODES, name, {"spec": {"taints": None}})


def _namespace(name: str) -> Object:
    labels = {} if name == RELEASE else {TENANT_LABEL: name}
    return {"metadata": {"name": name, "labels": labels}}


def _account(namespace: str) -> Object:
    return {"metadata": {"namespace": namespace, "name": "default"}}


def _endpoint(namespace: str, name: str) -> Object:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"tenant": namespace, "configurations": [CONFIGURATION["id"]]},
    }


def _create(cluster: Kube, resource: Resource, body: Object) -> None:
    with suppress(AlreadyExists):
        cluster.create(resource, body)


def _all(act: Callable[[T], None], things: Iterable[T]) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(act, things):
            pass
