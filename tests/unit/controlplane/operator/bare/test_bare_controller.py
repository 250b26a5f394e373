"""Endpoints' rounds over a cluster in memory: caches in, writes out."""

from typing import Any

import pytest

from controlplane.cluster import NAMESPACES, PODS, SERVICES, VOLUME_CLAIMS, Object, Resource
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Replica
from controlplane.local.objects import LocalCluster
from controlplane.operator.bare.controller import EndpointRounds
from controlplane.operator.manifests.tenant import TenantSettings
from controlplane.operator.runtime.executor import Executor
from controlplane.operator.tenants import reading
from controlplane.watching.cache import Cache

NAMESPACE = "fp-t"
H200 = GPUConfiguration(id="h200", gpu="H200", memory_gib=139.8)


class Cluster:
    """An API server's objects with rounds over caches that are always up to date."""

    def __init__(self) -> None:
        self.objects = LocalCluster()
        kinds: dict[Resource, Any] = {
            ENDPOINTS: GPUEndpoint.of,
            REPLICAS: Replica.of,
            **{it: lambda body: body for it in (PODS, SERVICES, VOLUME_CLAIMS, NAMESPACES)},
        }
        self.caches: dict[Resource, Cache[Any]] = {
            kind: Cache(kind, parse) for kind, parse in kinds.items()
        }
        deployments = Cache(DEPLOYMENTS, InferenceDeployment.of)
        self.executor = Executor(self.objects, self.caches.values())
        self.rounds = EndpointRounds(
            endpoints=self.caches[ENDPOINTS],
            replicas=self.caches[REPLICAS],
            pods=self.caches[PODS],
            services=self.caches[SERVICES],
            claims=self.caches[VOLUME_CLAIMS],
            namespaces=reading.Namespaces(
                self.objects,
                TenantSettings("flashplane"),
                reading.Caches(self.caches[NAMESPACES], deployments, self.caches[ENDPOINTS]),
                lambda: {"h200": H200},
            ),
            catalogue=lambda: {"h200": H200},
        )
        labels = {"flashplane.io/tenant": "t"}
        self.objects.create(
            NAMESPACES,
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": labels},
            },
        )

    def make(self, **spec: Any) -> None:
        body = {"tenant": "t", "configurations": ["h200"], **spec}
        self.objects.create(ENDPOINTS, GPUEndpoint.body(NAMESPACE, "dev", spec=body))

    def settle(self) -> int:
        """Run rounds until one writes nothing; return how many did."""
        for count in range(20):
            for kind, cache in self.caches.items():
                listing = self.objects.list(kind)
                cache.replace(listing.items, listing.resource_version)
            plan = self.rounds.plan((NAMESPACE, "dev"))
            if not plan.actions:
                return count
            self.executor.execute(plan)
        raise AssertionError("it never comes to rest")

    def names(self, kind: Resource) -> list[str]:
        return [it["metadata"]["name"] for it in self.objects.list(kind).items]

    def endpoint(self) -> Object:
        return self.objects.get(ENDPOINTS, "dev", namespace=NAMESPACE)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_rounds_come_to_rest_with_everything_there(cluster: Cluster) -> None:
    cluster.make(volume={"sizeGiB": 1}, ports=[{"name": "web", "port": 80}])
    cluster.settle()
    assert cluster.names(REPLICAS) == ["dev-0"]
    assert cluster.names(VOLUME_CLAIMS) == ["dev-volume"]
    assert cluster.names(SERVICES) == ["dev-web"]
    assert cluster.settle() == 0


def test_a_deletion_waits_for_the_lease_and_then_ends(cluster: Cluster) -> None:
    cluster.make()
    cluster.settle()
    cluster.objects.delete(ENDPOINTS, "dev", namespace=NAMESPACE)
    cluster.settle()
    lease = cluster.objects.get(REPLICAS, "dev-0", namespace=NAMESPACE)
    assert lease["spec"]["drain"] == "Deleted"
    assert cluster.names(ENDPOINTS) == ["dev"]
    gone = {"metadata": {"finalizers": None}}
    cluster.objects.patch(REPLICAS, "dev-0", gone, namespace=NAMESPACE)
    cluster.objects.delete(REPLICAS, "dev-0", namespace=NAMESPACE)
    cluster.settle()
    assert cluster.names(ENDPOINTS) == []


def test_a_lease_of_another_version_is_left_alone(cluster: Cluster) -> None:
    cluster.make()
    cluster.settle()
    key = (NAMESPACE, "dev-0")
    body = cluster.caches[REPLICAS].body(*key)
    assert body is not None
    metadata = {**body["metadata"], "resourceVersion": "999999"}
    unreadable = {**body, "metadata": metadata, "spec": {"from": "the future"}}
    cluster.caches[REPLICAS].replace([unreadable], "999999")
    assert cluster.rounds.plan((NAMESPACE, "dev")).actions == ()


def test_a_spec_that_no_server_checked_is_refused_in_its_status(cluster: Cluster) -> None:
    cluster.make()
    cluster.settle()
    body = cluster.endpoint()
    body["spec"]["ports"] = [{"name": "web", "port": 99999}]
    body["metadata"]["resourceVersion"] = "999999"
    cluster.caches[ENDPOINTS].replace([body], "999999")
    plan = cluster.rounds.plan((NAMESPACE, "dev"))
    cluster.executor.execute(plan)
    accepted = cluster.endpoint()["status"]["conditions"][1]
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "65535" in accepted["message"]
    assert cluster.names(REPLICAS) == ["dev-0"]


def test_an_unreadable_endpoint_can_still_be_deleted(cluster: Cluster) -> None:
    cluster.make()
    cluster.settle()
    body = cluster.endpoint()
    body["spec"] = {}
    body["metadata"]["resourceVersion"] = "999998"
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.caches[ENDPOINTS].replace([body], "999998")
    cluster.executor.execute(cluster.rounds.plan((NAMESPACE, "dev")))
    lease = cluster.objects.get(REPLICAS, "dev-0", namespace=NAMESPACE)
    assert lease["spec"]["drain"] == "Deleted"
    cluster.caches[REPLICAS].replace([], "999999")
    (last,) = cluster.rounds.plan((NAMESPACE, "dev")).actions
    assert last.change["metadata"]["finalizers"] == []  # type: ignore[union-attr]
