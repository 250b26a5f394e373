"""What a tenant's namespace holds so that its pods are alone: policies, quota, an empty identity.

Called by the deployment's and endpoint's plans, which apply what `holds` finds missing or changed.
Engines are reached by gateways, the operator and jobs only, and reach nobody but the source of
their weights; a customer's own container reaches the Internet, never the cluster or a cloud's
metadata.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controlplane.cluster import (
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
)
from controlplane.crd.base import TENANT_LABEL
from controlplane.operator.manifests.base import COMPONENT_LABEL
from controlplane.operator.manifests.pods import ENGINE, FETCHES_LABEL
from controlplane.operator.manifests.settings import (
    ENGINE_PORT,
    SERVICE_ACCOUNT,
    TOKEN_KEY,
    TOKEN_SECRET,
)

BARE = "bare"  # the component label of customers' own containers
LEVEL = "restricted"
_NAMESPACE_NAME = "kubernetes.io/metadata.name"  # a label that the API server sets
# Link-local is where clouds tell a machine's credentials; the others are clusters and their nodes.
_INSIDE_V4 = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
_INSIDE_V6 = ("fc00::/7", "fe80::/10")


@dataclass(frozen=True)
class TenantSettings:
    """What tenants' namespaces need of the installation.

    Attributes:
        release_namespace: where gateways and the operator run.
        operator_account: the operator's ServiceAccount there.
        tenant_role: ClusterRole with what the operator may do in tenants' namespaces.
        ssh_account: the SSH gateway's ServiceAccount; empty: there is none.
        ssh_role: ClusterRole with what it may do there.
        weights_cidrs: networks inside the cluster that weights may come from, on any port.
        resolver_cidrs: addresses of name servers beside kube-dns, such as a cache on each node.
        ingress_namespace: of the ingress controller that reaches customers' ports; empty: none.
        engine_token: the token gateways show to engines; empty: none.
    """

    release_namespace: str
    operator_account: str = "flashplane-operator"
    tenant_role: str = "flashplane-tenant"
    ssh_account: str = "flashplane-ssh-gateway"
    ssh_role: str = "flashplane-tenant-ssh"
    weights_cidrs: tuple[str, ...] = ()
    resolver_cidrs: tuple[str, ...] = ()
    ingress_namespace: str = ""
    engine_token: str = field(default="", repr=False)


def tenant_objects(
    namespace: str, tenant: str, settings: TenantSettings, *, gpus: Mapping[str, int]
) -> list[tuple[Resource, Object]]:
    """Return all of it, in the order in which it is to be made.

    Args:
        gpus: the most of each extended resource that its pods may hold together, surge included.
    """
    return [
        (NAMESPACES, tenant_namespace(namespace, tenant)),
        *[(ROLE_BINDINGS, it) for it in _role_bindings(namespace, settings)],
        (NETWORK_POLICIES, _policy(namespace, "default-deny", {}, ["Ingress", "Egress"])),
        *[(NETWORK_POLICIES, it) for it in _allowed(namespace, settings)],
        (RESOURCE_QUOTAS, _quota(namespace, gpus)),
        (LIMIT_RANGES, _limits(namespace)),
        *replica_identity(namespace, settings),
    ]


def replica_identity(namespace: str, settings: TenantSettings) -> list[tuple[Resource, Object]]:
    """Return what replicas' pods name: a ServiceAccount that may do nothing, the engine token."""
    account = {
        **_head(SERVICE_ACCOUNTS, namespace, SERVICE_ACCOUNT),
        "automountServiceAccountToken": False,
    }
    objects: list[tuple[Resource, Object]] = [(SERVICE_ACCOUNTS, account)]
    if settings.engine_token:
        data = {TOKEN_KEY: b64encode(settings.engine_token.encode()).decode()}
        secret = {**_head(SECRETS, namespace, TOKEN_SECRET), "type": "Opaque", "data": data}
        objects.append((SECRETS, secret))
    return objects


def tenant_namespace(namespace: str, tenant: str) -> Object:
    """Return the namespace with its tenant and Pod Security's level."""
    labels = {TENANT_LABEL: tenant}
    for mode in ("enforce", "audit", "warn"):
        labels[f"pod-security.kubernetes.io/{mode}"] = LEVEL
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": labels},
    }


def holds(current: Object | None, wanted: Object) -> bool:
    """Whether an object has everything that is wanted, beside what others added to it."""
    return current is not None and _within(wanted, current)


def _within(wanted: object, current: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(current, dict) and all(
            # The API server leaves out what is empty.
            (key in current and _within(value, current[key])) or (not value and key not in current)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(current, list)
            and len(wanted) == len(current)
            and all(_within(*pair) for pair in zip(wanted, current, strict=True))
        )
    return wanted == current


def _allowed(namespace: str, settings: TenantSettings) -> list[Object]:
    engines, bare = {COMPONENT_LABEL: ENGINE}, {COMPONENT_LABEL: BARE}
    # Jobs read what an engine wrote down of its requests.
    callers = _of_release(settings, "gateway", "operator", "jobs")
    resolver = {
        "namespaceSelector": _labelled({_NAMESPACE_NAME: "kube-system"}),
        "podSelector": _labelled({"k8s-app": "kube-dns"}),
    }
    resolvers = [resolver, *[_block(cidr) for cidr in settings.resolver_cidrs]]
    https = {"to": _internet(), "ports": [_port(443)]}
    own = [{"to": [_block(cidr) for cidr in settings.weights_cidrs]}]
    policies = [
        _policy(
            namespace,
            "gateways-to-engines",
            engines,
            ["Ingress"],
            ingress=[{"from": [callers], "ports": [_port(ENGINE_PORT)]}],
        ),
        _policy(
            namespace,
            "names",
            {},
            ["Egress"],
            egress=[{"to": resolvers, "ports": [_port(53, "UDP"), _port(53)]}],
        ),
        _policy(
            namespace,
            "weights",
            {FETCHES_LABEL: "true"},
            ["Egress"],
            egress=[https, *(own if settings.weights_cidrs else [])],
        ),
        _policy(namespace, "internet-from-bare", bare, ["Egress"], egress=[{"to": _internet()}]),
    ]
    # The SSH gateway forwards to declared ports only; the ingress knows no others.
    sources = [_of_release(settings, "ssh-gateway")] if settings.ssh_account else []
    if settings.ingress_namespace:
        source = _labelled({_NAMESPACE_NAME: settings.ingress_namespace})
        sources.append({"namespaceSelector": source})
    if sources:
        rule = {"from": sources}
        policies.append(_policy(namespace, "ports-of-bare", bare, ["Ingress"], ingress=[rule]))
    return policies


def _of_release(settings: TenantSettings, *components: str) -> Object:
    """Return the pods of the release's components, as a peer of a policy."""
    chosen = {"key": COMPONENT_LABEL, "operator": "In", "values": list(components)}
    return {
        "namespaceSelector": _labelled({_NAMESPACE_NAME: settings.release_namespace}),
        "podSelector": {"matchExpressions": [chosen]},
    }


def _policy(
    namespace: str,
    name: str,
    labels: Mapping[str, str],
    types: list[str],
    **rules: list[Object],
) -> Object:
    spec: Object = {"podSelector": _labelled(labels) if labels else {}, "policyTypes": types}
    return {**_head(NETWORK_POLICIES, namespace, name), "spec": spec | rules}


def _internet() -> list[Object]:
    return [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_INSIDE_V4)}},
        {"ipBlock": {"cidr": "::/0", "except": list(_INSIDE_V6)}},
    ]


def _quota(namespace: str, gpus: Mapping[str, int]) -> Object:
    hard = {f"requests.{resource}": str(count) for resource, count in sorted(gpus.items())}
    # No way in but through gateways, the SSH gateway and the ingress.
    hard |= {"services.loadbalancers": "0", "services.nodeports": "0"}
    return {**_head(RESOURCE_QUOTAS, namespace, "flashplane"), "spec": {"hard": hard}}


def _limits(namespace: str) -> Object:
    """Requests for who names none. Default limits would be laid on engines, which name none."""
    default = {"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}
    return {**_head(LIMIT_RANGES, namespace, "flashplane"), "spec": {"limits": [default]}}


def _role_bindings(namespace: str, settings: TenantSettings) -> Iterator[Object]:
    bound = {
        settings.operator_account: settings.tenant_role,
        settings.ssh_account: settings.ssh_role,
    }
    for account, role in bound.items():
        if not account:
            continue
        yield {
            **_head(ROLE_BINDINGS, namespace, role),
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role,
            },
            "subjects": [
                {
                    "kind": "ServiceAccount",
                    "name": account,
                    "namespace": settings.release_namespace,
                }
            ],
        }


def _head(resource: Resource, namespace: str, name: str) -> Object:
    labels = {"app.kubernetes.io/managed-by": "flashplane"}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
    }


def _labelled(labels: Mapping[str, str]) -> Object:
    return {"matchLabels": dict(labels)}


def _block(cidr: str) -> Object:
    return {"ipBlock": {"cidr": cidr}}


def _port(number: int, protocol: str = "TCP") -> Object:
    return {"port": number, "protocol": protocol}
