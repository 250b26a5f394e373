"""What is in namespaces, read through the API server. Called by both kinds of rounds.

Read and not watched: the operator may see policies and quotas of tenants' namespaces only, and is
allowed to by the RoleBinding that it makes there first. What it may not read yet counts as absent.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.cluster import Cluster, Forbidden, NotFound, Object, Resource, key_of
from controlplane.crd.base import TENANT_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.operator.manifests.tenant import (
    TenantSettings,
    replica_identity,
    tenant_objects,
)
from controlplane.operator.tenants.namespace import Namespace
from controlplane.watching.cache import Cache

FRESH_SECONDS = 55.0

Live = Mapping[tuple[str, str], Object]


@dataclass(frozen=True)
class Caches:
    """What a namespace's quota follows from."""

    namespaces: Cache[Object]
    deployments: Cache[InferenceDeployment]
    endpoints: Cache[GPUEndpoint]


class Namespaces:
    """Reads what namespaces hold, each at most about once a minute, or when something was put
    back there. Safe for use by many threads."""

    def __init__(
        self,
        cluster: Cluster,
        settings: TenantSettings,
        caches: Caches,
        catalogue: Callable[[], Mapping[str, GPUConfiguration]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._caches = caches
        self._catalogue = catalogue
        self._clock = clock
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, Live]] = {}

    def facts(self, name: str) -> Namespace:
        """Return the facts of a namespace.

        Raises:
            ClusterError: the API server does not answer.
        """
        body = self._caches.namespaces.body("", name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return Namespace(terminating=True)
        tenant = body["metadata"].get("labels", {}).get(TENANT_LABEL, "")
        wanted = (
            tenant_objects(name, tenant, self._settings, gpus=self._quota(name))
            if tenant
            else replica_identity(name, self._settings)
        )
        return Namespace(tenant, wanted=tuple(wanted), live=self._live(name, wanted))

    def forget(self, name: str) -> None:
        """Read a namespace anew at the next look: something was put back there."""
        with self._lock:
            self._read.pop(name, None)

    def _quota(self, name: str) -> dict[str, int]:
        caches = self._caches
        owners = caches.deployments.list(name), caches.endpoints.list(name)
        return quota(*owners, self._catalogue())

    def _live(self, name: str, wanted: Sequence[tuple[Resource, Object]]) -> Live:
        with self._lock:
            known = self._read.get(name)
        if known is not None and self._clock() - known[0] < FRESH_SECONDS:
            return known[1]
        live: dict[tuple[str, str], Object] = {}
        for resource, body in wanted:
            found = self._get(resource, body)
            if found is not None:
                live[resource.plural, key_of(body)[1]] = found
        with self._lock:
            self._read[name] = (self._clock(), live)
        return live

    def _get(self, resource: Resource, body: Object) -> Object | None:
        namespace, name = key_of(body)
        try:
            return self._cluster.get(resource, name, namespace=namespace)
        except (NotFound, Forbidden):
            return None


def quota(
    deployments: Iterable[InferenceDeployment],
    endpoints: Iterable[GPUEndpoint],
    catalogue: Mapping[str, GPUConfiguration],
) -> dict[str, int]:
    """Return the most GPUs a namespace's owners may hold together, by extended resource.

    Every listed configuration counts with what the deployment could have of it, surge included.
    """
    most: dict[str, int] = {}
    for deployment in deployments:
        for resource, gpus in _most(deployment, catalogue).items():
            most[resource] = most.get(resource, 0) + gpus
    for endpoint in endpoints:
        listed = [catalogue[it] for it in endpoint.spec.configurations if it in catalogue]
        for resource, gpus in _largest(listed).items():
            most[resource] = most.get(resource, 0) + gpus
    return most


def _most(
    deployment: InferenceDeployment, catalogue: Mapping[str, GPUConfiguration]
) -> dict[str, int]:
    spec = deployment.spec
    replicas = (spec.scaling.max if spec.scaling is not None else spec.replicas or 0) + (
        spec.rollout.surge
    )
    listed = [catalogue[it] for it in spec.configurations if it in catalogue]
    budget = spec.budget_gpus
    return {
        resource: count * replicas if budget is None else min(count * replicas, budget)
        for resource, count in _largest(listed).items()
    }


def _largest(configurations: Iterable[GPUConfiguration]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for it in configurations:
        largest[it.resource] = max(largest.get(it.resource, 0), it.count)
    return largest
