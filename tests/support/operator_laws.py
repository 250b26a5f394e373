"""What must hold whatever happens to the operator: checked at its writes, and on all there is.

The numbers are those of the design: (1) budget, (2) drains, (3) billing, (4) release proofs,
(5) nothing new under a deletion, (7) no scale-down while loading or holding, (8) one writer. That
(6) nothing is written at rest is for `World.rest`.
"""

from collections import Counter
from typing import TYPE_CHECKING

from controlplane.cluster import NODES, PODS, NotFound, Object
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICA_LABEL, REPLICAS
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Phase, Replica
from controlplane.local.objects import Call
from controlplane.operator.bare.pods import SCRUB
from controlplane.operator.replica.publisher import is_over, last_proof, proof
from controlplane.registry.leases import Lease

if TYPE_CHECKING:
    from support.operator_world import Operator, World

_ENDING = (Phase.STOPPING, Phase.SCRUBBING, Phase.QUARANTINED, Phase.FAILED, Phase.RELEASED)


class Laws:
    """The laws of one world. `holding`: gateways hold a request for the pool."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._leases: dict[str, Lease] = {}
        self._before: Object | None = None
        self.holding = False

    def before(self, actor: "Operator", call: Call) -> None:
        """Check what an operator is about to do."""
        self._before = self._find(call)
        if call.verb == "delete" and call.resource == PODS and self._before is not None:
            self._may_end(self._before)

    def after(self, actor: "Operator", call: Call) -> None:
        """Check what an operator has done."""
        body = self._find(call)
        if call.verb == "create" and call.resource == REPLICAS:
            assert body is not None
            self._may_be_made(actor, Replica.of(body))
        if call.verb == "create" and call.resource == PODS and body is not None:
            self._pod_may_be_made(actor, body)
        if call.verb == "patch" and call.resource == REPLICAS and self._before is not None:
            was, now = Replica.of(self._before), None if body is None else Replica.of(body)
            if not was.finalized and (now is None or now.finalized):
                self._may_be_let_go(was)
        if call.verb == "apply_status" and call.resource == DEPLOYMENTS and body is not None:
            assert self._before is not None
            self._may_shrink(actor, self._before, body)

    def check(self) -> None:
        """Check all there is."""
        self.nothing_is_given_twice()
        self.pods_have_an_owner()

    def nothing_is_given_twice(self) -> None:
        given: Counter[str] = Counter()
        for replica in self._world.replicas():
            for placement in replica.status.placements:
                given[placement.node] += placement.gpus
        for node in self._world.cluster.list(NODES).items:
            offered = int(node["status"]["allocatable"]["flashplane.io/tiny"])
            name = node["metadata"]["name"]
            assert given[name] <= offered, f"{name}: {given[name]} of {offered} GPUs are reserved"

    def pods_have_an_owner(self) -> None:
        """(4) No pod outlives its Replica."""
        replicas = {it.uid for it in self._world.replicas()}
        for pod in self._world.cluster.list(PODS).items:
            (owner,) = pod["metadata"]["ownerReferences"]
            assert owner["uid"] in replicas, f"{owner['name']} has gone, its pod has not"

    def bill(self) -> None:
        """(3) Say what jobs are told every second, and compare it with the true lives."""
        operator = self._world.operator
        for replica in operator.parts.replicas.routed():
            pods = operator.parts.replicas.pods_of(replica)
            engine = operator.engines.get(replica.uid)
            found = proof(replica, pods, engine, watched_at=operator.watched_at)
            if found is not None:
                self._leases[replica.uid] = found
        known = {it.uid: it for it in operator.parts.replicas.routed()}
        for uid, lease in list(self._leases.items()):
            replica_now = known.get(uid)
            if replica_now is None or is_over(replica_now.status):
                lease = last_proof(lease, replica_now)
                del self._leases[uid]
            self._is_true(lease)

    def streams_were_cut(self, key: str) -> None:
        """(2) A process was ended with streams: its time was over, or it was lost."""
        (replica,) = [it for it in self._world.replicas() if it.key == key]
        status = replica.status
        if status.phase not in _ENDING:
            return  # the pod was deleted with its namespace, by somebody else
        assert status.drained_by != "acknowledged", f"{key}: streams were cut"
        assert status.drained_by in ("deadline", "gone") or status.failure is not None, status

    def _is_true(self, lease: Lease) -> None:
        """What is billed lies within the life of one process."""
        namespace = lease.deployment.partition("/")[0]
        lives = [
            it
            for it in self._world.kubelets.lives
            if it.replica == f"{namespace}/{lease.replica}" and it.started_at <= lease.alive_since
        ]
        ends = [it.ended_at or self._world.now for it in lives]
        assert max(ends, default=0.0) >= lease.published_at, f"(3) billed beyond life: {lease}"

    def _find(self, call: Call) -> Object | None:
        try:
            return self._world.cluster.get(call.resource, call.name, namespace=call.namespace)
        except NotFound:
            return None

    def _may_end(self, pod: Object) -> None:
        """(2) Its end was written down before."""
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['labels'][REPLICA_LABEL]}"
        for replica in self._world.replicas():
            if replica.key == key:
                phase = replica.status.phase
                assert phase in _ENDING, f"{key} is {phase} and its pod is deleted"

    def _may_be_made(self, actor: "Operator", replica: Replica) -> None:
        kind = DEPLOYMENTS if replica.spec.owner_kind == "InferenceDeployment" else ENDPOINTS
        known = actor.parts.caches[kind].get(replica.namespace, replica.spec.owner)
        assert known is not None, "(5) made for nobody"
        assert not known.deleting, "(5) made for what is being deleted"
        if kind is not DEPLOYMENTS or known.spec.budget_gpus is None:
            return
        every = [it for it in self._world.replicas() if it.spec.owner == replica.spec.owner]
        held = sum(
            it.spec.configuration.count
            for it in every
            if it.namespace == replica.namespace
            and it.status.phase not in (Phase.RELEASED, Phase.FAILED)
        )
        assert held <= known.spec.budget_gpus, f"(1) {held} GPUs are more than the budget"

    def _pod_may_be_made(self, actor: "Operator", pod: Object) -> None:
        labels = pod["metadata"]["labels"]
        namespace = pod["metadata"]["namespace"]
        known = actor.parts.caches[REPLICAS].get(namespace, labels[REPLICA_LABEL])
        assert isinstance(known, Replica), "(5) a pod of nobody"
        assert known.status.placements, "(1) a pod without a reservation"
        if not pod["metadata"]["name"].endswith(SCRUB):
            assert not known.deleting, "(5) a pod for what is being deleted"

    def _may_be_let_go(self, replica: Replica) -> None:
        assert replica.status.phase in (Phase.RELEASED, Phase.FAILED), "(4) let go unreleased"
        pods = self._world.cluster.list(
            PODS, namespace=replica.namespace, labels=f"{REPLICA_LABEL}={replica.name}"
        ).items
        assert not pods, f"(4) {replica.key} is let go, its pods are there"

    def _may_shrink(self, actor: "Operator", before: Object, after: Object) -> None:
        old, new = InferenceDeployment.of(before).status, InferenceDeployment.of(after).status
        if new.desired >= old.desired or new.decisions == old.decisions:
            return  # no decision of the scaling law: it is being deleted
        last = new.decisions[-1]
        if last.signal in ("closed", "replicas", "max"):
            return  # that is what the spec wants
        assert not last.inputs["loading"], f"(7) scaled down while loading: {last}"
        assert not last.inputs["held"], f"(7) scaled down while holding: {last}"
        reports = actor.signals().gateways
        assert reports is not None, "(7) scaled down without signals"
        held = sum(report.held.get(f"{InferenceDeployment.of(after).key}", 0) for report in reports)
        assert not held, "(7) scaled down while requests are held"
