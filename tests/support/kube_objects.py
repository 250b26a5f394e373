"""Objects that tests on a Kubernetes API server make."""

from controlplane.cluster import Object


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
