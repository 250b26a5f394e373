"""A real API server takes what is rendered, keeps all of it, and sees no change the second time.

Version 1.20 enforces neither Pod Security nor NetworkPolicies; unit tests check their fields.
"""

from collections.abc import Iterator

import pytest
from support.configurations import configuration, replica
from support.kube_server import KubeServer
from support.polling import until

from controlplane.cluster import (
    NAMESPACES,
    PODS,
    RESOURCE_QUOTAS,
    Forbidden,
    Invalid,
    Object,
    Resource,
)
from controlplane.kube import Kube
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.settings import PodSettings
from controlplane.operator.manifests.tenant import TenantSettings, holds, tenant_objects

SETTINGS = TenantSettings("flashplane", ingress_namespace="ingress", engine_token="secret")
PODS_HERE = PodSettings(
    images={it: f"registry/{it}:1" for it in ("flash", "vllm", "sglang")}, engine_token=True
)
SOURCES: tuple[Object, ...] = (
    {"pvc": {"claim": "w"}, "digest": "sha256:" + "0" * 64},
    {"hub": {"repo": "o/n"}},
    {"image": {"reference": "registry/weights:1"}},
)


@pytest.fixture(scope="module")
def tenant(kube_server: KubeServer) -> Iterator[str]:
    """A tenant's namespace, as the operator makes it."""
    kube = Kube(kube_server.kubeconfig)
    name = "fp-tenant"
    for resource, body in wanted(name):
        kube.apply(resource, body)
    quota = {"requests.nvidia.com/gpu": "8"}

    def counted() -> bool:
        live = kube.get(RESOURCE_QUOTAS, "flashplane", namespace=name)
        return bool(quota.items() <= live.get("status", {}).get("hard", {}).items())

    until(counted, seconds=20, what="the quota to be counted")
    yield name
    kube.delete(NAMESPACES, name)
    kube.close()


def wanted(namespace: str) -> list[tuple[Resource, Object]]:
    return tenant_objects(namespace, "acme", SETTINGS, gpus={"nvidia.com/gpu": 8})


def live(kube: Kube, resource: Resource, body: Object, namespace: str) -> Object:
    inside = namespace if resource.namespaced else ""
    return kube.get(resource, body["metadata"]["name"], namespace=inside)


def test_a_tenants_namespace_is_kept_as_it_was_asked_for(kube: Kube, tenant: str) -> None:
    for resource, body in wanted(tenant):
        before = live(kube, resource, body, tenant)
        assert holds(before, body), body["metadata"]["name"]
        after = kube.apply(resource, body)
        # Counting writes the quota's status; nothing else may move.
        assert after["metadata"].get("generation") == before["metadata"].get("generation")
        assert holds(after, body)


@pytest.mark.parametrize("source", SOURCES, ids=lambda it: next(iter(it)))
@pytest.mark.parametrize("engine", ["flash", "vllm", "sglang"])
def test_engine_pods_are_taken(kube: Kube, tenant: str, engine: str, source: Object) -> None:
    uncounted = configuration(resource="example.com/gpu")
    made = replica(namespace=tenant, where=uncounted, engine={"name": engine}, weights=source)
    (pod,) = engine_pods(made, PODS_HERE)
    pod["metadata"]["name"] = f"{engine}-{next(iter(source))}"
    stored = kube.create(PODS, pod)
    # Admission adds tolerations of its own behind ours.
    ours = len(pod["spec"]["tolerations"])
    stored["spec"]["tolerations"] = stored["spec"]["tolerations"][:ours]
    assert holds(stored, pod)


def test_a_pod_without_its_reservation_is_refused(kube: Kube, tenant: str) -> None:
    (pod,) = engine_pods(replica(namespace=tenant, nodes=()), PODS_HERE)
    with pytest.raises(Invalid, match="must be specified when"):
        kube.create(PODS, pod)


def test_a_pod_beyond_the_quota_is_refused(kube: Kube, tenant: str) -> None:
    first = replica(namespace=tenant)
    kube.create(PODS, engine_pods(first, PODS_HERE)[0])
    (second,) = engine_pods(first, PODS_HERE)
    second["metadata"]["name"] = "chat-1-0"
    with pytest.raises(Forbidden, match="exceeded quota"):
        kube.create(PODS, second)
