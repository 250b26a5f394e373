"""Whatever happens in whatever order, and wherever the operator is cut off, some things hold.

Gateways here keep their own view of the registry, as old as their last look at it, and start and
finish requests as that view allows. An operator may die between any two writes, and may plan with
an object that has changed meanwhile.
"""

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.replica_world import ScriptedWorkload, World, node_body, replica_spec

from controlplane.cluster import PODS
from controlplane.crd.base import FINALIZER, seconds
from controlplane.crd.conditions import Reason
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.replica import Phase, Placement, Replica
from controlplane.operator.actions import Create, Delete, Patch
from controlplane.operator.replica import steps
from controlplane.operator.replica.plan import plan
from controlplane.operator.replica.publisher import proof, routed
from controlplane.operator.signals import GPUError

GATEWAYS = st.sampled_from(["g1", "g2"])


class Gateway:
    """What a gateway knows, and has in flight on the replica."""

    def __init__(self) -> None:
        self.sees: Any = None
        self.inflight = 0
        self.alive = True


class Lives(RuleBasedStateMachine):
    @initialize(bare=st.booleans(), gang=st.booleans())
    def begin(self, bare: bool, gang: bool) -> None:
        offers = [Placement(node="n1", gpus=4)] + ([Placement(node="n2", gpus=4)] * gang)
        self.bare = bare
        self.world = World(
            spec=replica_spec(path="bare" if bare else "dedicated", drain_timeout_seconds=60.0),
            workload=ScriptedWorkload(probed=not bare, needs_scrub=bare),
            offers=tuple(offers),
            nodes={"n1": node_body("n1"), "n2": node_body("n2")},
        )
        self.gateways = {"g1": Gateway(), "g2": Gateway()}
        self.old: Replica = self.world.replica
        # Nodes on which a customer's code ran since their GPUs were proven clean.
        self.dirty: set[str] = set()

    # The operator.

    @rule(cut=st.integers(0, 6), seconds=st.sampled_from([0, 1, 7, 65, 400]))
    def round(self, cut: int, seconds: int) -> None:
        """One round, cut off after some writes."""
        self.world.now += seconds
        if self.world.body is not None:
            self._execute(list(self.world.plan().actions)[: cut or None])

    @rule()
    def old_round(self) -> None:
        """A round on an object that may have changed meanwhile."""
        if self.world.body is not None:
            observed = replace(self.world.observed(), replica=self.old)
            self._execute(list(plan(observed, self.world.now).actions))

    @rule()
    def look(self) -> None:
        """The cache of replicas catches up."""
        if self.world.body is not None:
            self.old = self.world.replica

    def _execute(self, actions: list[Any]) -> None:
        for action in actions:
            before = self.world.body
            assert before is not None
            status = Replica.of(before).status
            if isinstance(action, Create):
                self._may_create(action, before)
            if isinstance(action, Delete) and action.resource is PODS:
                self._may_delete(action, status)
            if isinstance(action, Patch) and action.resource.kind == "Replica":
                self._may_let_go(action, before)
            if not self.world.carry_out(action) or self.world.body is None:
                return
            after = self.world.status
            if after.drained_by == "acknowledged" and not status.drained_by and not self.bare:
                streams = [it.inflight for it in self.gateways.values()]
                assert not any(streams), "a stream was cut"

    def _may_create(self, action: Create, body: Any) -> None:
        deleting = "deletionTimestamp" in body["metadata"]
        scrub = action.body["metadata"]["name"].endswith("-scrub")
        assert scrub or not deleting
        assert not self.world.terminating
        assert Replica.of(body).status.placements, "a pod without a reservation"

    def _may_delete(self, action: Delete, status: Any) -> None:
        ending = (Phase.STOPPING, Phase.SCRUBBING, Phase.QUARANTINED, Phase.FAILED, Phase.RELEASED)
        assert status.phase in ending, "a pod was deleted before its end was written down"
        if action.grace_seconds == 0:
            node = self.world.pods[action.name]["spec"]["nodeName"]
            assert node not in self.world.nodes

    def _may_let_go(self, action: Patch, body: Any) -> None:
        if FINALIZER in action.change["metadata"]["finalizers"]:
            return
        assert not self.world.pods
        assert not Replica.of(body).status.placements
        for name in self.dirty & self.world.nodes.keys():
            assert "annotations" in self.world.nodes[name]["metadata"], "given on unproven"

    # The world.

    @rule()
    def all_goes_well(self) -> None:
        """A start-up without incidents, where nothing stands against it."""
        world = self.world
        for _ in range(2):
            if world.body is not None:
                self._execute(list(world.plan().actions))
        if world.body is not None and world.phase in steps.STARTING and world.pods:
            self.kubelet(Phase.PROBING)
            self.engine(True)
            self._execute(list(world.plan().actions))
            self.gateway_looks("g1")
            self.gateway_looks("g2")

    @rule(phase=st.sampled_from([Phase.SCHEDULED, Phase.LOADING, Phase.PROBING]))
    def kubelet(self, phase: Phase) -> None:
        if self.world.pods and self.world.body is not None and self.world.status.placements:
            self.world.pods_are(phase)
            if self.bare and phase is not Phase.SCHEDULED:
                self.dirty |= {it.node for it in self.world.status.placements}
            for it in self.gateways.values():
                it.inflight = 0  # another process: its streams are lost

    @rule(reason=st.sampled_from([Reason.ENGINE_FAILED, Reason.PREEMPTED]))
    def crash(self, reason: Reason) -> None:
        if self.world.pods and self.world.body is not None and self.world.status.placements:
            self.world.pods_are(Phase.LOADING, reason, message="exit 1")
            for it in self.gateways.values():
                it.inflight = 0

    @rule(healthy=st.booleans())
    def engine(self, healthy: bool) -> None:
        if self.world.pods:
            running = sum(it.inflight for it in self.gateways.values())
            self.world.engine_says(healthy=healthy, running=running)

    @rule()
    def pods_end(self) -> None:
        self.world.pods_end()
        if not self.world.pods:
            for it in self.gateways.values():
                it.inflight = 0

    @rule(ok=st.booleans())
    def scrub(self, ok: bool) -> None:
        for name, pod in self.world.pods.items():
            if name.endswith("-scrub") and "proof" not in pod["status"]:
                found = ScrubProof(at="2027-01-01T00:00:00Z", ok=ok)
                pod["status"]["proof"] = found
                if ok:
                    self.dirty.clear()

    @rule(gateway=GATEWAYS)
    def gateway_looks(self, gateway: str) -> None:
        world = self.world
        told = routed(world.replica, world.now) if world.body is not None else None
        self.gateways[gateway].sees = told

    @rule(gateway=GATEWAYS)
    def request(self, gateway: str) -> None:
        it = self.gateways[gateway]
        if it.alive and it.sees is not None and not it.sees.draining and self.world.pods:
            it.inflight += 1

    @rule(gateway=GATEWAYS)
    def finish(self, gateway: str) -> None:
        it = self.gateways[gateway]
        it.inflight = max(0, it.inflight - 1)

    @rule()
    def reports(self) -> None:
        """Every gateway that lives reports, as each does twice a second."""
        for name, it in self.gateways.items():
            if it.alive and self.world.gateways is not None:
                draining = it.sees is not None and it.sees.draining
                self.world.gateway_reports(
                    name,
                    inflight={"u-1": it.inflight} if it.inflight else {},
                    draining={"u-1": it.inflight} if draining else {},
                )

    @rule(gateway=GATEWAYS)
    def gateway_vanishes(self, gateway: str) -> None:
        """It is cut off from the store; its streams may go on."""
        self.gateways[gateway].alive = False

    @rule()
    def store_is_down(self) -> None:
        self.world.gateways = None

    @precondition(lambda self: self.world.gateways is None)
    @rule()
    def store_is_up(self) -> None:
        self.world.gateways = {}
        # Before anything is decided on it, whoever lives has spoken.
        self.reports()

    @rule(drain=st.booleans())
    def is_asked_to_end(self, drain: bool) -> None:
        if self.world.body is not None and drain:
            self.world.ask(drain="enough")
        elif self.world.body is not None and "deletionTimestamp" not in self.world.body["metadata"]:
            self.world.delete()

    @rule()
    def namespace_ends(self) -> None:
        self.world.terminating = True

    @rule(node=st.sampled_from(["n1", "n2"]), ready=st.booleans())
    def node_changes(self, node: str, ready: bool) -> None:
        if node in self.world.nodes:
            self._set_ready(node, ready)

    def _set_ready(self, node: str, ready: bool) -> None:
        """Its annotations stay: whoever takes a quarantine off vouches for the node."""
        metadata = {k: v for k, v in self.world.nodes[node]["metadata"].items() if k != "name"}
        del metadata["resourceVersion"]
        self.world.nodes[node] = node_body(node, ready=ready, **metadata)

    @rule(node=st.sampled_from(["n1", "n2"]))
    def node_goes(self, node: str) -> None:
        self.world.nodes.pop(node, None)
        self.dirty.discard(node)

    @rule(seconds=st.sampled_from([2, 30, 120]))
    def notice(self, seconds: int) -> None:
        self.world.notices["n1"] = self.world.now + seconds

    @rule(xid=st.sampled_from([94, 109, 79, 43]))
    def gpu_error(self, xid: int) -> None:
        self.world.gpu_errors["n1"] = (GPUError(self.world.now, xid),)

    # What holds always.

    @invariant()
    def pods_have_a_reservation(self) -> None:
        if hasattr(self, "world") and self.world.pods:
            assert self.world.body is not None, "pods outlived their replica"
            assert self.world.status.placements

    @invariant()
    def only_life_is_proven(self) -> None:
        world = getattr(self, "world", None)
        if world is None or world.body is None:
            return
        pods = [*world.pods.values()]
        lease = proof(world.replica, pods, world.engine, watched_at=world.now)
        if lease is None:
            return
        assert world.phase is Phase.SERVING
        assert pods
        assert world.status.serving_since is not None
        assert lease.alive_since > seconds(world.status.serving_since)
        assert lease.published_at <= world.now

    def teardown(self) -> None:
        """Left alone, with everybody doing their part, a replica that is to end does end."""
        world = getattr(self, "world", None)
        if world is None or world.body is None:
            return
        if "deletionTimestamp" not in world.body["metadata"]:
            world.delete()
        for name in list(world.nodes):
            self._set_ready(name, True)
        for _ in range(12):
            if world.body is None or world.phase is Phase.QUARANTINED:
                return
            world.now += 70
            self._execute(list(world.plan().actions))
            if world.body is not None:
                self.pods_end()
                self.scrub(ok=True)
        assert world.body is None or world.phase is Phase.QUARANTINED, world.status


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
