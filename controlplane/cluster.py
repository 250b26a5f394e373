"""A Kubernetes API server as this program needs it: a Protocol, its words and its errors.

`kube` is the real one, `local.objects` keeps objects in memory for one machine and for tests.
Objects are plain dicts in Kubernetes' JSON form. Called by operator, deployments, ssh_gateway.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Object: TypeAlias = dict[str, Any]
FIELD_MANAGER = "flashplane"


@dataclass(frozen=True)
class Resource:
    """A kind of objects. `group` is empty for the core ones."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What an object's `apiVersion` says."""
        return f"{self.group}/{self.version}" if self.group else self.version


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
EVENTS = Resource("", "v1", "events", "Event")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
LEADER_WORKER_SETS = Resource(
    "leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet"
)


class ClusterError(Exception):
    """The API server did not do what it was asked.

    ClusterError
    ├── NotFound        404
    ├── AlreadyExists   409 on create
    ├── Conflict        409: the object has changed, or another manager owns the field
    ├── Gone            410: the watch's or list's version is too old
    ├── Invalid         422, 400: the object breaks its schema or rules
    ├── Forbidden       401, 403
    │   └── NamespaceTerminating  nothing new is let into a namespace that is being deleted
    └── Unreachable     429, 5xx, timeouts, refused connections: the outcome may be unknown
    """


class NotFound(ClusterError):
    """No such object, or its kind is not installed."""


class AlreadyExists(ClusterError):
    """An object of this name is there."""


class Conflict(ClusterError):
    """The object has changed meanwhile, or another manager owns a field."""


class Gone(ClusterError):
    """The version to go on from is too old: list again."""


class Invalid(ClusterError):
    """The object breaks its schema or its rules; the message says where."""


class Forbidden(ClusterError):
    """This identity may not do that."""


class NamespaceTerminating(Forbidden):
    """The namespace is being deleted: nothing can be created in it any more."""


class Unreachable(ClusterError):
    """No answer, or an answer to try again; a write may have happened."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Listing:
    """A page of a list; `continuation` is empty on the last one."""

    items: list[Object]
    resource_version: str
    continuation: str = ""


@dataclass(frozen=True)
class WatchEvent:
    """A change. A BOOKMARK's object has a resource version and nothing else."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object = field(repr=False)


class Cluster(Protocol):
    """What is asked of an API server. Every method raises `ClusterError`."""

    def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        limit: int = 500,
        continuation: str = "",
    ) -> Listing:
        """Return one page of at most `limit` objects, of all namespaces unless one is given."""

    def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        labels: str = "",
        timeout_seconds: float = 300.0,
    ) -> Iterator[WatchEvent]:
        """Yield changes after `resource_version` until the server ends the watch.

        Raises:
            Gone: the version is too old.
        """

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object:
        """Return an object."""

    def create(self, resource: Resource, body: Object) -> Object:
        """Create an object and return it as stored.

        Raises:
            AlreadyExists: one of this name is there, perhaps being deleted.
        """

    def apply(self, resource: Resource, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Apply server-side, forced, as `manager`: what it applied before and leaves out goes."""

    def apply_status(
        self, resource: Resource, body: Object, *, manager: str = FIELD_MANAGER
    ) -> Object:
        """Apply `body["status"]` through the status subresource. A resource version in
        `body["metadata"]` makes it conditional."""

    def patch(
        self, resource: Resource, name: str, change: Object, *, namespace: str = ""
    ) -> Object:
        """Merge `change` (RFC 7386) into an object; a resource version in its metadata makes it
        conditional. For finalizers, annotations and fields of other managers."""

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for an object's deletion, its dependents in the background.

        Raises:
            NotFound: it is gone.
            Conflict: the object of this name has another `uid`.
        """


def key_of(body: Object) -> tuple[str, str]:
    """Return an object's (namespace, name); the namespace of a cluster's object is empty."""
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
