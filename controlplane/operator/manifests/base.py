"""What every pod of a replica has, whatever runs in it: engines, customers' containers, checks."""

from typing import Any

from controlplane.cluster import Object
from controlplane.crd.base import OWNER_LABEL, REPLICA_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.replica import Replica
from controlplane.operator.capacity.demand import tolerations

COMPONENT_LABEL = "app.kubernetes.io/component"


def pod(replica: Replica, name: str, labels: Object, spec: Object) -> Object:
    """Return a pod that goes when its replica goes."""
    metadata: Object = {
        "name": name,
        "namespace": replica.namespace,
        "labels": labels,
        "ownerReferences": [replica.owner_reference()],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pod_labels(replica: Replica, component: str) -> dict[str, str]:
    """Return the labels by which a pod is found."""
    return {
        OWNER_LABEL: replica.spec.owner,
        REPLICA_LABEL: replica.name,
        COMPONENT_LABEL: component,
        "app.kubernetes.io/part-of": "flashplane",
        "app.kubernetes.io/managed-by": "flashplane",
    }


def pod_spec(replica: Replica, image_pull_secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return the beginning of a spec: bound to the reserved nodes, and without any rights."""
    spec: dict[str, Any] = {
        "affinity": _pinned([it.node for it in replica.status.placements]),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": tolerations(replica.spec),
    }
    if image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": it} for it in image_pull_secrets]
    if replica.spec.isolation.runtime_class:
        spec["runtimeClassName"] = replica.spec.isolation.runtime_class
    return spec


def resources(configuration: GPUConfiguration) -> Object:
    """Return what one container takes of each of the replica's nodes: all that is reserved."""
    gpus = {configuration.resource: str(configuration.gpus_per_node)}
    requests = {"cpu": configuration.cpu, "memory": configuration.memory}
    return {"requests": requests | gpus, "limits": gpus}


def _pinned(nodes: list[str]) -> Object:
    name = {"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [name]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
