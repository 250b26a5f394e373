"""Objects that tests on a Kubernetes API server make."""

from support.polling import until

from controlplane.cluster import NAMESPACES, SERVICE_ACCOUNTS, Cluster, NotFound, Object


def settings_map(namespace: str, name: str, **data: str) -> Object:
    """A ConfigMap, which can be anything's stand-in; reflectors of `watching` see it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "labels": {"seen": "yes"}},
        "data": data,
    }


def a_replica(namespace: str, name: str) -> Object:
    """A Replica as small as its schema allows."""
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "ownerKind": "GPUEndpoint",
            "owner": "box",
            "path": "bare",
            "revision": "r1",
            "configuration": {"id": "h200-x1", "gpu": "H200", "memoryGib": 140.4},
        },
    }


def make_namespace(cluster: Cluster, name: str, labels: dict[str, str] | None = None) -> None:
    """Create a namespace and wait until pods can be made in it."""
    cluster.create(NAMESPACES, {"metadata": {"name": name, "labels": labels or {}}})

    def has_account() -> bool:
        try:
            return bool(cluster.get(SERVICE_ACCOUNTS, "default", namespace=name))
        except NotFound:
            return False

    until(has_account, seconds=20, what="the namespace's ServiceAccount")
