"""What each component may do, and what it must not, asked from the API server's own RBAC."""

from collections.abc import Iterator

import pytest
from support import release
from support.kube_server import KubeServer
from support.release import NAMESPACE, account, kubectl

from controlplane.cluster import NAMESPACES, Resource
from controlplane.crd.base import TENANT_LABEL
from controlplane.kube import Kube

REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
TENANT, STRANGER, SYSTEM, ALL = "fp-acme", "somebody-elses", "kube-system", ""

# (component, verb, resource, group, namespace)
Deed = tuple[str, str, str, str, str]

MAY: list[Deed] = [
    *(("operator", "watch", it, "", ALL) for it in ("nodes", "pods", "namespaces")),
    ("operator", "patch", "nodes", "", ALL),
    ("operator", "create", "namespaces", "", ALL),
    ("operator", "create", "rolebindings", "rbac.authorization.k8s.io", TENANT),
    ("operator", "update", "leases", "coordination.k8s.io", NAMESPACE),
    ("operator", "get", "configmaps", "", NAMESPACE),
    *(("operator", "patch", "replicas/status", "flashplane.io", it) for it in (TENANT, NAMESPACE)),
    *(("operator", "create", "replicas", "flashplane.io", it) for it in (TENANT, NAMESPACE)),
    *(("operator", "delete", "pods", "", it) for it in (TENANT, NAMESPACE)),
    *(("operator", "delete", it, "flashplane.io", TENANT) for it in ("replicas", "gpuendpoints")),
    *(("operator", verb, "services", "", TENANT) for verb in ("create", "patch", "delete")),
    *(
        ("operator", verb, "ingresses", "networking.k8s.io", TENANT)
        for verb in ("create", "patch", "delete")
    ),
    *(
        ("operator", verb, "leaderworkersets", "leaderworkerset.x-k8s.io", TENANT)
        for verb in ("create", "patch", "delete")
    ),
    ("operator", "delete", "replicas", "flashplane.io", NAMESPACE),
    *(("operator", verb, "persistentvolumeclaims", "", TENANT) for verb in ("create", "patch")),
    ("operator", "patch", "networkpolicies", "networking.k8s.io", TENANT),
    ("operator", "create", "resourcequotas", "", TENANT),
    ("operator", "create", "events", "", TENANT),
    *(("operator", "get", it, "", TENANT) for it in ("serviceaccounts", "resourcequotas")),
    ("operator", "get", "networkpolicies", "networking.k8s.io", TENANT),
    ("operator", "get", "rolebindings", "rbac.authorization.k8s.io", TENANT),
    ("jobs", "create", "inferencedeployments", "flashplane.io", TENANT),
    ("jobs", "delete", "gpuendpoints", "flashplane.io", TENANT),
    ("jobs", "create", "namespaces", "", ALL),
    ("jobs", "list", "nodes", "", ALL),
    ("ssh-gateway", "watch", "gpuendpoints", "flashplane.io", ALL),
    ("ssh-gateway", "create", "pods/exec", "", TENANT),
    ("orphans", "create", "jobs", "batch", NAMESPACE),
    ("orphans", "list", "persistentvolumeclaims", "", NAMESPACE),
]

MAY_NOT: list[Deed] = [
    # Nobody reads Secrets, anywhere.
    *(
        (component, verb, "secrets", "", namespace)
        for component in ("operator", "jobs", "ssh-gateway", "orphans")
        for verb in ("get", "list", "watch")
        for namespace in (ALL, NAMESPACE, TENANT, SYSTEM)
    ),
    # The operator is no administrator.
    ("operator", "create", "clusterrolebindings", "rbac.authorization.k8s.io", ALL),
    ("operator", "create", "clusterroles", "rbac.authorization.k8s.io", ALL),
    ("operator", "escalate", "clusterroles", "rbac.authorization.k8s.io", ALL),
    ("operator", "bind", "clusterroles", "rbac.authorization.k8s.io", ALL),
    ("operator", "impersonate", "users", "", ALL),
    ("operator", "delete", "namespaces", "", ALL),
    ("operator", "delete", "nodes", "", ALL),
    ("operator", "delete", "rolebindings", "rbac.authorization.k8s.io", TENANT),
    ("operator", "patch", "customresourcedefinitions", "apiextensions.k8s.io", ALL),
    ("operator", "create", "deployments", "apps", TENANT),
    ("operator", "create", "daemonsets", "apps", SYSTEM),
    ("operator", "create", "pods/exec", "", TENANT),
    ("operator", "get", "pods/log", "", TENANT),
    ("operator", "delete", "inferencedeployments", "flashplane.io", TENANT),
    # Claims hold what customers keep: they go with their owner, by the cluster's own hand.
    ("operator", "delete", "persistentvolumeclaims", "", TENANT),
    ("operator", "delete", "gpuendpoints", "flashplane.io", STRANGER),
    ("operator", "delete", "networkpolicies", "networking.k8s.io", TENANT),
    *(("operator", "list", it, "", ALL) for it in ("serviceaccounts", "resourcequotas")),
    ("operator", "list", "rolebindings", "rbac.authorization.k8s.io", ALL),
    # Where no tenant is, it only looks.
    *(
        ("operator", verb, resource, "", namespace)
        for verb in ("create", "delete", "patch")
        for resource in ("pods", "services", "persistentvolumeclaims", "serviceaccounts")
        for namespace in (STRANGER, SYSTEM)
    ),
    ("operator", "create", "replicas", "flashplane.io", STRANGER),
    ("operator", "get", "configmaps", "", SYSTEM),
    ("operator", "update", "leases", "coordination.k8s.io", SYSTEM),
    # Jobs project rows and touch nothing that runs.
    ("jobs", "create", "pods", "", TENANT),
    ("jobs", "delete", "pods", "", TENANT),
    ("jobs", "patch", "replicas", "flashplane.io", TENANT),
    ("jobs", "patch", "inferencedeployments/status", "flashplane.io", TENANT),
    ("jobs", "delete", "namespaces", "", ALL),
    # The SSH gateway reaches into tenants' containers and no others.
    *(("ssh-gateway", "create", "pods/exec", "", it) for it in (NAMESPACE, STRANGER, SYSTEM)),
    ("ssh-gateway", "create", "pods", "", TENANT),
    ("ssh-gateway", "create", "pods/portforward", "", TENANT),
    ("ssh-gateway", "patch", "gpuendpoints", "flashplane.io", TENANT),
    # The finder of journals stays at home.
    ("orphans", "list", "persistentvolumeclaims", "", TENANT),
    ("orphans", "delete", "persistentvolumeclaims", "", NAMESPACE),
    ("orphans", "create", "jobs", "batch", TENANT),
    # Who serves customers never speaks with the API server.
    *((it, "get", "pods", "", NAMESPACE) for it in ("gateway", "api", "beat")),
    *((it, "list", "nodes", "", ALL) for it in ("gateway", "api", "beat")),
]


@pytest.fixture(scope="module")
def kube(kube_server: KubeServer) -> Iterator[Kube]:
    """An admin's client, with the release, a tenant's namespace and somebody else's."""
    release.install(kube_server)
    client = Kube(kube_server.kubeconfig)
    for name, labels in ((TENANT, {TENANT_LABEL: "acme"}), (STRANGER, {})):
        client.apply(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
    for role, component in (("tenant", "operator"), ("tenant-ssh", "ssh-gateway")):
        bind(kube_server, f"fp-flashplane-{role}", component, TENANT)
    yield client
    for name in (TENANT, STRANGER):
        client.delete(NAMESPACES, name)
    client.close()
    release.uninstall(kube_server)


def bind(server: KubeServer, role: str, component: str, namespace: str, check: bool = True) -> str:
    """Bind a role as the operator would; return what the API server says against it."""
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": f"fp-flashplane-{component}",
                "namespace": NAMESPACE,
            }
        ],
    }
    words = ("--as", account("operator"), "apply", "--server-side", "--filename", "-")
    return kubectl(server, *words, given=body, check=check).stderr


def may(kube: Kube, deed: Deed) -> bool:
    component, verb, resource, group, namespace = deed
    name, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "resource": name,
        "subresource": subresource,
        "group": group,
        "namespace": namespace,
    }
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
    spec = {
        "user": account(component),
        "groups": [*groups, "system:authenticated"],
        "resourceAttributes": attributes,
    }
    answer = kube.create(REVIEWS, {"metadata": {}, "spec": spec})
    return bool(answer["status"]["allowed"])


def test_components_may_do_their_work(kube: Kube) -> None:
    assert [deed for deed in MAY if not may(kube, deed)] == []


def test_components_may_not_do_more(kube: Kube) -> None:
    assert [deed for deed in MAY_NOT if may(kube, deed)] == []


def test_the_operator_cannot_make_itself_administrator(kube: Kube, kube_server: KubeServer) -> None:
    for role in ("cluster-admin", "admin", "system:node"):
        refusal = bind(kube_server, role, "operator", TENANT, check=False)
        assert "forbidden" in refusal, role


def test_anonymous_callers_may_nothing(kube: Kube) -> None:
    spec = {
        "user": "system:anonymous",
        "groups": ["system:unauthenticated"],
        "resourceAttributes": {
            "verb": "list",
            "resource": "inferencedeployments",
            "group": "flashplane.io",
        },
    }
    answer = kube.create(REVIEWS, {"metadata": {}, "spec": spec})
    assert not answer["status"]["allowed"]
