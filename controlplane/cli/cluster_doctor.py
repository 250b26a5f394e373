"""`flashplane doctor --cluster`: is a Kubernetes cluster fit for the chart, and is it well after?

Before an install it checks what the chart needs; once the chart is there, also what runs. Reads
with whatever credentials KUBECONFIG gives, changes nothing.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from controlplane.cli import data_doctor
from controlplane.cli.findings import Finding
from controlplane.cluster import (
    LEASES,
    NODES,
    Cluster,
    ClusterError,
    Forbidden,
    NotFound,
    Object,
    Resource,
)
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS, seconds
from controlplane.crd.replica import Phase
from controlplane.errors import StartupError
from controlplane.kube import Kube
from controlplane.operator.main import LEASE_NAME
from controlplane.operator.schema_check import wrong_kinds
from controlplane.settings import Settings

OLDEST_SERVER = (1, 20)
RULES_SERVER = (1, 25)
POLICIES_SERVER = (1, 30)
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
WORKLOADS = (
    Resource("apps", "v1", "statefulsets", "StatefulSet"),
    Resource("apps", "v1", "deployments", "Deployment"),
)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False)
REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
)
# What `helm install` of both charts writes: group, resource, whether in the namespace.
WRITES = (
    ("apiextensions.k8s.io", "customresourcedefinitions", False),
    ("rbac.authorization.k8s.io", "clusterroles", False),
    ("rbac.authorization.k8s.io", "clusterrolebindings", False),
    ("rbac.authorization.k8s.io", "roles", True),
    ("apps", "statefulsets", True),
    ("apps", "deployments", True),
    ("batch", "jobs", True),
    ("networking.k8s.io", "networkpolicies", True),
)
_BROKEN = (Phase.DEGRADED, Phase.FAILED, Phase.QUARANTINED)


def examine(settings: Settings, namespace: str) -> Iterator[Finding]:
    """Return the findings about the cluster of KUBECONFIG, one after the other."""
    yield from data_doctor.examine(settings.database_url, settings.redis_url)
    try:
        cluster = Kube(settings.kubeconfig)
    except StartupError as error:
        yield Finding("API server", False, "no credentials", str(error))
        return
    try:
        yield server(cluster.server_version())
        yield from before(cluster, namespace)
        yield from after(cluster, namespace, time.time())
    except Forbidden as error:
        yield Finding("Reading", False, str(error), "use credentials of who runs the cluster")
    except ClusterError as error:
        yield Finding("API server", False, str(error), "see that KUBECONFIG's server answers")
    finally:
        cluster.close()


def before(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    """Return what the chart needs of a cluster."""
    yield _permissions(cluster, namespace)
    problem = wrong_kinds(cluster)
    yield Finding("Definitions", not problem, problem or "of this version", _upgrade(problem))
    yield gpus(_all(cluster, NODES))
    yield storage(_all(cluster, STORAGE_CLASSES))


def after(cluster: Cluster, namespace: str, now: float) -> Iterator[Finding]:
    """Return how an installed chart is; one line when it is not installed."""
    labels = "app.kubernetes.io/part-of=flashplane"
    workloads = [it for kind in WORKLOADS for it in _all(cluster, kind, namespace, labels)]
    if not workloads:
        yield Finding("Release", True, f"not installed in {namespace}")
        return
    yield ready(workloads)
    try:
        yield lease(cluster.get(LEASES, LEASE_NAME, namespace=namespace), now)
    except NotFound:
        yield Finding("Operator", False, "no lease", "look at the log of the operator's pods")
    try:
        yield replicas(_all(cluster, REPLICAS))
        for resource in (DEPLOYMENTS, ENDPOINTS):
            yield owners(resource.kind, _all(cluster, resource))
    except NotFound:
        return  # the definitions are missing, which has been told


def server(version: str) -> Finding:
    """Judge the API server's version, such as `v1.34.2`."""
    match = re.match(r"v(\d+)\.(\d+)", version)
    found = (int(match[1]), int(match[2])) if match else (0, 0)
    if found < OLDEST_SERVER:
        fix = f"upgrade it to {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer"
        return Finding("API server", False, version, fix)
    if found < RULES_SERVER:
        version += "; it checks no rules in definitions, the operator does"
    if found < POLICIES_SERVER:
        version += "; it has no admission policies, RBAC alone limits the operator"
    return Finding("API server", True, version)


def gpus(nodes: Sequence[Object]) -> Finding:
    """Count what ready nodes offer."""
    offered: Counter[str] = Counter()
    for node in nodes:
        conditions = node.get("status", {}).get("conditions", ())
        if not any(it["type"] == "Ready" and it["status"] == "True" for it in conditions):
            continue
        product = node["metadata"].get("labels", {}).get("nvidia.com/gpu.product", "")
        for name, amount in node["status"].get("allocatable", {}).items():
            if "/" in name and ("gpu" in name or "/mig-" in name) and str(amount).isdigit():
                offered[f"{name} {product}".strip()] += int(amount)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(offered.items()) if count)
    fix = "" if listed else "install NVIDIA's GPU operator or device plugin on nodes with GPUs"
    return Finding("GPUs", bool(listed), listed or "no ready node offers any", fix)


def storage(classes: Sequence[Object]) -> Finding:
    """See whether journals get a disk without naming a StorageClass."""
    for it in classes:
        if it["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true":
            return Finding("Storage", True, f"{it['metadata']['name']} is the default")
    names = ", ".join(it["metadata"]["name"] for it in classes) or "there is none"
    fix = "set gateway.journal.storageClassName"
    return Finding("Storage", False, f"no default StorageClass ({names})", fix)


def ready(workloads: Sequence[Object]) -> Finding:
    """See whether everything that should run runs."""
    behind = []
    for it in workloads:
        wanted, have = it["spec"].get("replicas", 1), it.get("status", {}).get("readyReplicas", 0)
        if have < wanted:
            behind.append(f"{it['metadata']['name']} {have}/{wanted}")
    if behind:
        return Finding("Processes", False, ", ".join(behind), "look at their pods' events and logs")
    return Finding("Processes", True, f"{len(workloads)} workloads ready")


def lease(found: Object, now: float) -> Finding:
    """See whether an operator leads."""
    spec = found["spec"]
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        return Finding("Operator", False, "nobody leads", "look at the log of the operator's pods")
    age = max(0.0, now - seconds(renewed))
    limit = spec.get("leaseDurationSeconds", 15)
    detail = f"{holder} leads, seen {age:.0f} s ago"
    if age > limit:
        return Finding("Operator", False, detail, "look at the log of the operator's pods")
    return Finding("Operator", True, detail)


def replicas(found: Sequence[Object]) -> Finding:
    """Count replicas by phase."""
    phases = Counter(it.get("status", {}).get("phase") or Phase.PENDING.value for it in found)
    detail = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items())) or "none"
    broken = any(phases[phase.value] for phase in _BROKEN)
    fix = "see `kubectl get fpr --all-namespaces` and their conditions" if broken else ""
    return Finding("Replicas", not broken, detail, fix)


def owners(kind: str, found: Sequence[Object]) -> Finding:
    """Name the deployments or endpoints that are not what they should be."""
    bad = [
        f"{it['metadata']['namespace']}/{it['metadata']['name']} ({condition.get('reason', '?')})"
        for it in found
        for condition in it.get("status", {}).get("conditions", ())
        if condition["type"] == "Ready" and condition["status"] == "False"
    ]
    fix = "their conditions say what to do: `kubectl describe`" if bad else ""
    return Finding(kind, not bad, ", ".join(bad) or f"{len(found)}, none in trouble", fix)


def _permissions(cluster: Cluster, namespace: str) -> Finding:
    refused = []
    for group, resource, inside in WRITES:
        attributes = {"group": group, "resource": resource, "verb": "create"}
        if inside:
            attributes["namespace"] = namespace
        spec = {"resourceAttributes": attributes}
        answer = cluster.create(REVIEWS, {"metadata": {}, "spec": spec})
        if not answer["status"]["allowed"]:
            refused.append(resource)
    if refused:
        fix = "install with credentials of a cluster administrator"
        return Finding("Permissions", False, f"may not create {', '.join(refused)}", fix)
    return Finding("Permissions", True, "enough to install the charts")


def _upgrade(problem: str) -> str:
    return "helm upgrade --install flashplane-crds charts/flashplane-crds" if problem else ""


def _all(
    cluster: Cluster, resource: Resource, namespace: str | None = None, labels: str = ""
) -> list[Object]:
    found: list[Object] = []
    continuation = ""
    while True:
        page = cluster.list(resource, namespace=namespace, labels=labels, continuation=continuation)
        found += page.items
        continuation = page.continuation
        if not continuation:
            return found
