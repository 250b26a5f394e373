"""The writes to replicas: made in a slot, weighed, told to drain, removed when ended. Pure."""

from collections.abc import Iterable, Iterator

from controlplane.cluster import Object
from controlplane.crd.base import REPLICAS
from controlplane.crd.conditions import Reason
from controlplane.crd.inference import InferenceDeployment, Template
from controlplane.crd.replica import Replica, ReplicaSpec
from controlplane.operator.actions import Create, Delete, Patch
from controlplane.operator.deployment.choice import Claim
from controlplane.operator.deployment.revision import endpoint, revision
from controlplane.operator.making import make


def create(deployment: InferenceDeployment, of: Template, claim: Claim, weight: int) -> Create:
    """Return the making of a replica of a revision in a claimed slot."""
    spec = ReplicaSpec(
        owner_kind="InferenceDeployment",
        owner=deployment.name,
        path=deployment.spec.path,
        tenant=deployment.spec.tenant,
        model=endpoint(deployment, of.model),
        revision=revision(of),
        slot=claim.slot,
        configuration=claim.configuration,
        spot=claim.configuration.spot,
        engine=of.engine,
        weights=of.weights,
        isolation=of.isolation,
        drain_timeout_seconds=deployment.spec.drain.timeout_seconds,
        weight=weight,
    )
    return make(deployment, spec)


def weigh(replicas: Iterable[Replica], weight: int) -> Iterator[Patch]:
    """Yield what gives each of `replicas` this weight."""
    for replica in replicas:
        if replica.spec.weight != weight:
            yield _patch(replica, {"weight": weight})


def drain(replica: Replica, why: Reason) -> Patch:
    """Return what tells a replica to end: no new request, and gone when the last has ended."""
    return _patch(replica, {"drain": why})


def limit_drains(replicas: Iterable[Replica], timeout_seconds: float) -> Iterator[Patch]:
    """Yield what gives each of `replicas` this time for its last requests."""
    for replica in replicas:
        if replica.spec.drain_timeout_seconds != timeout_seconds:
            yield _patch(replica, {"drainTimeoutSeconds": timeout_seconds})


def remove(replica: Replica) -> Delete:
    """Return the removal of a replica whose GPUs are free: its slot becomes free too."""
    return Delete(REPLICAS, replica.namespace, replica.name, uid=replica.uid)


def _patch(replica: Replica, spec: Object) -> Patch:
    return Patch(REPLICAS, replica.namespace, replica.name, {"spec": spec})
