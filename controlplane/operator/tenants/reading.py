"""What is in namespaces, read through the API server. Called by both kinds of rounds.

Read and not watched: the operator may see policies and quotas of tenants' namespaces only, and is
allowed to by the RoleBinding that it makes there first. What it may not read yet counts as absent.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from controlplane.cluster import Cluster, Forbidden, NotFound, Object, Resource, key_of
from controlplane.crd.base import SUSPENDED_LABEL, TENANT_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.operator.manifests.tenant import (
    TenantSettings,
    replica_identity,
    tenant_objects,
)
from controlplane.operator.tenants.namespace import Namespace
from controlplane.watching.cache import Cache, Change

FRESH_SECONDS = 55.0

Live = Mapping[tuple[str, str], Object]


@dataclass(frozen=True)
class Caches:
    """What a namespace's quota follows from."""

    namespaces: Cache[Object]
    deployments: Cache[InferenceDeployment]
    endpoints: Cache[GPUEndpoint]


class _Quota(NamedTuple):
    """A namespace's quota with what it was reckoned from."""

    version: int
    catalogue: Mapping[str, GPUConfiguration]
    gpus: dict[str, int]


class _Reading(NamedTuple):
    """What was found in a namespace, and all that follows from it."""

    at: float
    body: Object
    gpus: dict[str, int]
    facts: Namespace


class Namespaces:
    """Reads what namespaces hold, each at most about once a minute, or when something was put
    back there. Safe for use by many threads.

    Every round of an endpoint or deployment asks, so that what is known is not reckoned again.
    """

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
        self._readings: dict[str, _Reading] = {}
        self._in_turn: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._quotas: dict[str, _Quota] = {}
        self._versions: defaultdict[str, int] = defaultdict(int)  # of the specs in a namespace
        caches.deployments.subscribe(self._owner_changed)
        caches.endpoints.subscribe(self._owner_changed)

    def facts(self, name: str) -> Namespace:
        """Return the facts of a namespace.

        Raises:
            ClusterError: the API server does not answer.
        """
        body = self._caches.namespaces.body("", name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return Namespace(terminating=True)
        with self._lock:
            in_turn = self._in_turn[name]
        with in_turn:  # one reads, the others take what it found
            gpus = self._quota(name)
            with self._lock:
                known = self._readings.get(name)
            if known is not None and self._clock() - known.at >= FRESH_SECONDS:
                known = None
            if known is None or known.body is not body or known.gpus is not gpus:
                known = self._take(name, body, gpus, known)
        return known.facts

    def forget(self, name: str) -> None:
        """Read a namespace anew at the next look: something was put back there."""
        with self._lock:
            self._readings.pop(name, None)

    def _take(
        self, name: str, body: Object, gpus: dict[str, int], known: _Reading | None
    ) -> _Reading:
        labels = body["metadata"].get("labels", {})
        tenant = labels.get(TENANT_LABEL, "")
        wanted = (
            tenant_objects(name, tenant, self._settings, gpus=gpus)
            if tenant
            else replica_identity(name, self._settings)
        )
        if known is not None and known.facts.live is not None:
            at, live = known.at, known.facts.live
        else:
            at, live = self._clock(), self._live(wanted)
        suspended = labels.get(SUSPENDED_LABEL, "")
        facts = Namespace(tenant, wanted=tuple(wanted), live=live, suspended=suspended)
        with self._lock:
            taken = self._readings[name] = _Reading(at, body, gpus, facts)
        return taken

    def _quota(self, name: str) -> dict[str, int]:
        catalogue = self._catalogue()
        with self._lock:
            version, known = self._versions[name], self._quotas.get(name)
        if known is not None and known.version == version and known.catalogue is catalogue:
            return known.gpus
        owners = self._caches.deployments.list(name), self._caches.endpoints.list(name)
        gpus = quota(*owners, catalogue)
        if known is not None and known.gpus == gpus:
            gpus = known.gpus
        with self._lock:
            self._quotas[name] = _Quota(version, catalogue, gpus)
        return gpus

    def _owner_changed(self, change: Change) -> None:
        if change.old is None or change.new is None or change.old["spec"] != change.new["spec"]:
            with self._lock:
                self._versions[change.key[0]] += 1

    def _live(self, wanted: Sequence[tuple[Resource, Object]]) -> Live:
        live: dict[tuple[str, str], Object] = {}
        for resource, body in wanted:
            found = self._get(resource, body)
            if found is not None:
                live[resource.plural, key_of(body)[1]] = found
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
