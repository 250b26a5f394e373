"""What is in a namespace is read once, and anew when something there has changed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controlplane.cluster import NAMESPACES, RESOURCE_QUOTAS, Object, Resource
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, TENANT_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.local.objects import LocalCluster
from controlplane.operator.manifests.tenant import TenantSettings
from controlplane.operator.tenants.namespace import Namespace
from controlplane.operator.tenants.reading import Caches, Namespaces
from controlplane.watching.cache import Cache

H200 = GPUConfiguration(id="h200", gpu="H200", memory_gib=139.8)


class CountingCluster(LocalCluster):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object:
        self.reads += 1
        return super().get(resource, name, namespace=namespace)


class World:
    """One tenant's namespace."""

    def __init__(self) -> None:
        self.cluster = CountingCluster()
        self.catalogue = {"h200": H200}
        self.now = 0.0
        self.endpoints: Cache[GPUEndpoint] = Cache(ENDPOINTS, GPUEndpoint.of)
        namespaces: Cache[Object] = Cache(NAMESPACES, lambda body: body)
        body = {"metadata": {"name": "t", "labels": {TENANT_LABEL: "acme"}}}
        namespaces.assume(self.cluster.create(NAMESPACES, body))
        deployments = Cache(DEPLOYMENTS, InferenceDeployment.of)
        self.namespaces = Namespaces(
            self.cluster,
            TenantSettings("flashplane"),
            Caches(namespaces, deployments, self.endpoints),
            lambda: self.catalogue,
            clock=lambda: self.now,
        )

    def order(self, name: str, **parts: Any) -> None:
        spec = {"tenant": "acme", "configurations": ["h200"], **parts}
        body = {"metadata": {"namespace": "t", "name": name}, "spec": spec}
        self.endpoints.assume(self.cluster.create(ENDPOINTS, body))

    def facts(self) -> Namespace:
        return self.namespaces.facts("t")

    def gpus(self) -> str:
        wanted = dict(self.facts().wanted)
        return str(wanted[RESOURCE_QUOTAS]["spec"]["hard"]["requests.nvidia.com/gpu"])


@pytest.fixture
def world() -> World:
    made = World()
    made.order("a")
    return made


def test_many_rounds_read_once(world: World) -> None:
    once = world.facts()
    reads = world.cluster.reads
    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(lambda _: world.facts(), range(50)))
    assert all(it is once for it in every)
    assert world.cluster.reads == reads


def test_it_is_read_again_after_a_minute_or_when_told_to(world: World) -> None:
    world.facts()
    reads = world.cluster.reads
    world.namespaces.forget("t")
    world.facts()
    world.now += 60.0
    world.facts()
    assert world.cluster.reads == 3 * reads


def test_another_endpoint_raises_the_quota_without_another_reading(world: World) -> None:
    assert world.gpus() == "1"
    reads = world.cluster.reads
    world.order("b")
    assert world.gpus() == "2"
    assert world.cluster.reads == reads


def test_another_catalogue_is_another_quota(world: World) -> None:
    assert world.gpus() == "1"
    world.catalogue = {"h200": H200.model_copy(update={"count": 8})}
    assert world.gpus() == "8"
