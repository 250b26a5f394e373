"""What is to be done for an endpoint now; pure. Called by `controller`.

An endpoint has at most one replica, whose name is `<endpoint>-0`: two cannot be made. What a
customer may change while it runs (keys, ports, TTL) is read live; any other change ends the lease
and makes another. Its volume outlives leases, and goes with the endpoint.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from controlplane.cluster import SERVICES, VOLUME_CLAIMS, Object
from controlplane.crd.base import ENDPOINTS, OWNER_LABEL, REPLICAS, seconds
from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint, GPUEndpointSpec
from controlplane.crd.engine import Isolation
from controlplane.crd.replica import Phase, Replica, ReplicaSpec
from controlplane.operator.actions import Action, Apply, ApplyStatus, Create, Delete, Patch, Plan
from controlplane.operator.bare.observed import Observed
from controlplane.operator.bare.pods import CLASS_ANNOTATION, claim_name
from controlplane.operator.bare.ports import INGRESSES, ingress, object_name, service
from controlplane.operator.bare.status import status
from controlplane.operator.finalizers import hold, let_go
from controlplane.operator.making import make
from controlplane.operator.tenants.namespace import repairs

# Read live, so a change of them leaves the lease alone.
_LIVE = {"ssh_keys", "ports", "ttl_seconds", "state", "configurations", "tenant"}
_ENDED = (Phase.RELEASED, Phase.FAILED)
_NO_GPUS = (Reason.PENDING_TOO_LONG, Reason.WAITING_FOR_CAPACITY)
DRAIN_SECONDS = 30.0
# A lease whose image or container was at fault is not tried anew for so long, unless it is changed.
FAULT_PAUSE_SECONDS = 300.0
_OWN_FAULTS = (Reason.IMAGE_UNAVAILABLE, Reason.ENGINE_FAILED)

Problem = tuple[Reason, str]


def plan(observed: Observed, now: float) -> Plan:
    """Return what brings the endpoint nearer to its spec."""
    observed = _halted(observed)
    endpoint = observed.endpoint
    if endpoint.deleting:
        return _ending(observed, now)
    expires_in = _expires_in(endpoint, now)
    if expires_in is not None and expires_in <= 0:
        return Plan((Delete(ENDPOINTS, endpoint.namespace, endpoint.name, endpoint.uid),))
    if endpoint.finalized and not observed.namespace.terminating:
        # Alone, and before anything that has to be taken back; its change brings the next round.
        return Plan((hold(endpoint),))
    problem = check(observed)
    # First the status, which says why, so that a lease given up is not forgotten with its object.
    actions = _status(observed, problem, now)
    pause = _pause_seconds(observed, now)
    if not observed.namespace.terminating:
        # Nobody else's code runs in a namespace before its walls stand.
        actions = [*repairs(observed.namespace), *actions]
        if pause <= 0:
            actions += _keep(observed, problem)
    waits = [it for it in (expires_in, pause if pause > 0 else None) if it is not None]
    return Plan(tuple(actions), again_in_seconds=min(waits, default=None))


def _halted(observed: Observed) -> Observed:
    """Return the same with a stopped spec where nothing may run in the namespace."""
    endpoint = observed.endpoint
    if not observed.namespace.suspended or endpoint.spec.state == "Stopped":
        return observed
    spec = endpoint.spec.model_copy(update={"state": "Stopped"})
    return replace(observed, endpoint=endpoint.model_copy(update={"spec": spec}))


def check(observed: Observed) -> Problem | None:
    """Return why the spec cannot be done here, and what to do about it; None when it can."""
    spec = observed.endpoint.spec
    if observed.namespace.tenant != spec.tenant:
        return (
            Reason.NAMESPACE_NOT_TENANT,
            f"label namespace {observed.endpoint.namespace} with the tenant {spec.tenant},"
            " or make the endpoint in that tenant's own namespace",
        )
    unknown = [it for it in spec.configurations if it not in observed.catalogue]
    if unknown:
        known = ", ".join(sorted(observed.catalogue)) or "none"
        return (
            Reason.UNKNOWN_CONFIGURATION,
            f"no GPU configuration {', '.join(unknown)} in the catalogue, which has: {known}",
        )
    unfit = [it for it in spec.configurations if not observed.catalogue[it].bare]
    if unfit:
        return (
            Reason.UNKNOWN_CONFIGURATION,
            f"{', '.join(unfit)} is not for bare endpoints, nothing confines their containers"
            " there: install Flashplane on a Kubernetes cluster with GPUs and order it there",
        )
    if not observed.provable:
        return (
            Reason.IMAGE_UNAVAILABLE,
            "this installation has no image that proves GPUs clean: set FLASHPLANE_TOOLS_IMAGE of"
            " the operator, as the chart does",
        )
    return None


def template(spec: GPUEndpointSpec) -> str:
    """Return the hash of what a lease is made from and cannot be changed in place."""
    fixed = spec.model_dump(mode="json", exclude=_LIVE)
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:10]


def _keep(observed: Observed, problem: Problem | None) -> list[Action]:
    endpoint, replica = observed.endpoint, observed.replica
    if endpoint.spec.state == "Stopped":
        return [*_unexpose(observed, {}), *end(replica, "Stopped")]
    if replica is not None and replica.status.phase in _ENDED:
        return [Delete(REPLICAS, replica.namespace, replica.name, replica.uid)]
    if replica is not None:
        if problem is None and _outdated(endpoint, replica):
            return end(replica, "Changed")
        return [*_volume(observed), *_expose(observed)]
    if problem is not None:
        return []
    return [*_volume(observed), _lease(endpoint, _configuration(observed))]


def _pause_seconds(observed: Observed, now: float) -> float:
    """Return how long a failed lease stays, so that one that cannot work is not made for ever."""
    endpoint, replica = observed.endpoint, observed.replica
    failure = replica.status.failure if replica is not None else None
    if replica is None or failure is None or replica.status.phase is not Phase.FAILED:
        return 0.0
    stays = endpoint.spec.state == "Running" and not _outdated(endpoint, replica)
    if failure.reason not in _OWN_FAULTS or not stays:
        return 0.0
    return seconds(failure.at) + FAULT_PAUSE_SECONDS - now


def end(replica: Replica | None, why: str) -> list[Action]:
    """Drain a lease; one that is over already is deleted."""
    if replica is None or replica.status.phase is Phase.QUARANTINED:
        return []
    if replica.status.phase in _ENDED:
        if replica.deleting:
            return []
        return [Delete(REPLICAS, replica.namespace, replica.name, replica.uid)]
    if replica.spec.drain:
        return []
    change = {"spec": {"drain": why, "drainTimeoutSeconds": DRAIN_SECONDS}}
    return [Patch(REPLICAS, replica.namespace, replica.name, change)]


def _ending(observed: Observed, now: float) -> Plan:
    """End the deletion once no customer's lease is left; quarantined GPUs are the platform's."""
    endpoint = observed.endpoint
    if holds(observed.replica):
        return Plan((*_status(observed, None, now), *end(observed.replica, "Deleted")))
    return Plan() if endpoint.finalized else Plan((let_go(endpoint),))


def holds(replica: Replica | None) -> bool:
    """Whether a customer still has GPUs; quarantined ones are nobody's."""
    return replica is not None and replica.status.phase is not Phase.QUARANTINED


def _outdated(endpoint: GPUEndpoint, replica: Replica) -> bool:
    configured = replica.spec.configuration.id in endpoint.spec.configurations
    return replica.spec.revision != template(endpoint.spec) or not configured


def _configuration(observed: Observed) -> GPUConfiguration:
    """Return the first configuration that was not skipped lately, else the first of all."""
    spec = observed.endpoint.spec
    skipped = observed.endpoint.status.skipped
    left = [it for it in spec.configurations if it not in skipped] or spec.configurations
    return observed.catalogue[left[0]]


def _skipped(observed: Observed) -> list[str]:
    """Return the configurations that gave no GPUs in time, begun anew when all of them have."""
    endpoint, replica = observed.endpoint, observed.replica
    skipped = [it for it in endpoint.status.skipped if it in endpoint.spec.configurations]
    failure = replica.status.failure if replica is not None else None
    if replica is not None and failure is not None and failure.reason in _NO_GPUS:
        skipped = [it for it in skipped if it != replica.spec.configuration.id]
        skipped.append(replica.spec.configuration.id)
    everything = set(skipped) >= set(endpoint.spec.configurations)
    # The last one skipped stays so, else the same one would be tried twice in a row.
    return skipped[-1:] if everything and len(endpoint.spec.configurations) > 1 else skipped


def _lease(endpoint: GPUEndpoint, configuration: GPUConfiguration) -> Create:
    node = "dedicated" if endpoint.spec.whole_node else "shared"
    spec = ReplicaSpec(
        owner_kind="GPUEndpoint",
        owner=endpoint.name,
        path="bare",
        tenant=endpoint.spec.tenant,
        revision=template(endpoint.spec),
        configuration=configuration,
        spot=configuration.spot,
        bare=endpoint.spec.model_copy(update={"ssh_keys": [], "ttl_seconds": None}),
        isolation=Isolation(node=node, runtime_class=endpoint.spec.runtime_class),
        drain_timeout_seconds=DRAIN_SECONDS,
    )
    return make(endpoint, spec)


def _volume(observed: Observed) -> list[Action]:
    endpoint = observed.endpoint
    volume = endpoint.spec.volume
    if volume is None or observed.has_volume:
        return []
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{volume.size_gib}Gi"}},
    }
    if volume.storage_class:
        spec["storageClassName"] = volume.storage_class
    metadata = {
        "name": claim_name(endpoint.name),
        "namespace": endpoint.namespace,
        "labels": {OWNER_LABEL: endpoint.name},
        "annotations": {CLASS_ANNOTATION: volume.storage_class},
        "ownerReferences": [endpoint.owner_reference()],
    }
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": spec,
    }
    return [Apply(VOLUME_CLAIMS, body)]


def _expose(observed: Observed) -> list[Action]:
    endpoint = observed.endpoint
    wanted = {port.name: port.port for port in endpoint.spec.ports}
    actions: list[Action] = []
    for port in endpoint.spec.ports:
        if observed.exposed.get(port.name) == port.port:
            continue
        owner = endpoint.owner_reference()
        if observed.exposure.domain:
            actions.append(Apply(INGRESSES, ingress(endpoint, port, owner, observed.exposure)))
        # Last, since it is what says that the port is done.
        actions.append(Apply(SERVICES, service(endpoint, port, owner)))
    return [*actions, *_unexpose(observed, wanted)]


def _unexpose(observed: Observed, wanted: Mapping[str, int]) -> list[Action]:
    endpoint = observed.endpoint
    return [
        Delete(resource, endpoint.namespace, object_name(endpoint, name))
        for name in sorted(observed.exposed.keys() - wanted.keys())
        for resource in (INGRESSES, SERVICES)
        if resource is SERVICES or observed.exposure.domain
    ]


def _expires_in(endpoint: GPUEndpoint, now: float) -> float | None:
    if endpoint.spec.ttl_seconds is None:
        return None
    return endpoint.created_at + endpoint.spec.ttl_seconds - now


def _status(observed: Observed, problem: Problem | None, now: float) -> list[Action]:
    """Write the status before the lease it explains is replaced, if it says anything new."""
    endpoint = observed.endpoint
    new = status(observed, problem=problem, now=now).model_copy(
        update={"skipped": _skipped(observed)}
    )
    if new == endpoint.status:
        return []
    body = GPUEndpoint.body(endpoint.namespace, endpoint.name, status=new.wire())
    return [ApplyStatus(ENDPOINTS, body)]
