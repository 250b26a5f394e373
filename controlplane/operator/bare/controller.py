"""Endpoints' rounds: what the caches hold of one, and the plan for it. Wired by `main`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.cluster import Object
from controlplane.crd.base import ENDPOINTS, OWNER_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.replica import Replica
from controlplane.operator.actions import Apply, Plan
from controlplane.operator.bare.observed import UNKNOWN, Access, Observed
from controlplane.operator.bare.plan import end, holds, plan
from controlplane.operator.bare.pods import SANITIZE, claim_name
from controlplane.operator.bare.ports import NOT_EXPOSED, PORT_LABEL, Exposure
from controlplane.operator.bare.proof import report_of
from controlplane.operator.finalizers import is_held, let_go_unread
from controlplane.operator.tenants.reading import Namespaces
from controlplane.operator.unreadable import refuse
from controlplane.watching.cache import Broken, Cache, Change, Key

BROKEN_SECONDS = 30.0


@dataclass(frozen=True)
class EndpointRounds:
    """Makes the plan of one endpoint's round.

    Attributes:
        replicas: all replicas; one is found by its name.
        pods, services, claims: those with OWNER_LABEL at least.
        catalogue: returns every GPU configuration by id.
        provable: whether there is an image that can prove GPUs clean.
    """

    endpoints: Cache[GPUEndpoint]
    replicas: Cache[Replica]
    pods: Cache[Object]
    services: Cache[Object]
    claims: Cache[Object]
    namespaces: Namespaces
    catalogue: Callable[[], Mapping[str, GPUConfiguration]]
    provable: bool = True
    access: Access = UNKNOWN
    exposure: Exposure = NOT_EXPOSED
    clock: Callable[[], float] = time.time

    def plan(self, key: Key) -> Plan:
        """Return what is to be done for the endpoint of `key`, which may be gone.

        Raises:
            ClusterError: what is in its namespace cannot be read.
        """
        found = self.endpoints.get(*key)
        if found is None:
            return Plan()
        lease = self.replicas.get(key[0], f"{key[1]}-0")
        if isinstance(lease, Broken):
            # Written by another version: it is there, so nothing may be made in its place.
            return Plan(again_in_seconds=BROKEN_SECONDS)
        if isinstance(found, Broken):
            if _deleting(found):
                return _end(found, lease)
            return refuse(GPUEndpoint, found.body, found.error, self.clock())
        made = plan(self._observe(found, lease), self.clock())
        if any(isinstance(it, Apply) for it in made.actions):
            self.namespaces.forget(key[0])
        return made

    def in_namespace(self, change: Change) -> list[Key]:
        """Return the endpoints of a changed namespace, which is read anew."""
        name = change.key[1]
        self.namespaces.forget(name)
        return [(name, it.name) for it in self.endpoints.list(name)]

    def _observe(self, endpoint: GPUEndpoint, lease: Replica | None) -> Observed:
        claim = self.claims.body(endpoint.namespace, claim_name(endpoint.name))
        pod = self.pods.body(endpoint.namespace, f"{endpoint.name}-0-0")
        report = report_of(pod, SANITIZE) if pod is not None else None
        return Observed(
            endpoint=endpoint,
            replica=lease,
            catalogue=self.catalogue(),
            exposed=self._exposed(endpoint),
            has_volume=claim is not None,
            gpu_uuids=tuple(report.gpu_uuids) if report is not None else (),
            namespace=self.namespaces.facts(endpoint.namespace),
            provable=self.provable,
            access=self.access,
            exposure=self.exposure,
        )

    def _exposed(self, endpoint: GPUEndpoint) -> dict[str, int]:
        exposed = {}
        for service in self.services.list(endpoint.namespace):
            labels = service["metadata"].get("labels", {})
            if labels.get(OWNER_LABEL) == endpoint.name and PORT_LABEL in labels:
                exposed[labels[PORT_LABEL]] = service["spec"]["ports"][0]["targetPort"]
        return exposed


def owner_key(change: Change) -> list[Key]:
    """Return the endpoint that a changed replica, pod, service or claim is of."""
    metadata = change.body["metadata"]
    owner = metadata.get("labels", {}).get(OWNER_LABEL)
    return [(metadata.get("namespace", ""), owner)] if owner else []


def _deleting(broken: Broken) -> bool:
    return "deletionTimestamp" in broken.body["metadata"]


def _end(broken: Broken, lease: Replica | None) -> Plan:
    """End an endpoint whose spec nobody can read any more: its deletion needs none."""
    if holds(lease):
        return Plan(tuple(end(lease, "Deleted")))
    body = broken.body
    return Plan((let_go_unread(ENDPOINTS, body),)) if is_held(body) else Plan()
