"""Ways in which others' operators have hurt their users, each kept from happening here."""

import pytest
from support.replica_world import START, ScriptedWorkload, World, node_body, replica_spec

from controlplane.cluster import LEADER_WORKER_SETS, PODS
from controlplane.crd.base import seconds
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase
from controlplane.operator.actions import Create, Delete
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.health.table import XID_ACTIONS
from controlplane.operator.health.verdict import plan_node
from controlplane.operator.replica import moves
from controlplane.operator.replica.plan import plan_orphans
from controlplane.operator.replica.publisher import last_proof, proof, routed
from controlplane.operator.signals import GPUError


def deletes(world: World) -> list[Delete]:
    return [it for it in world.done if isinstance(it, Delete) and it.resource is PODS]


def test_scaling_down_lets_every_stream_finish() -> None:
    """An inference platform's scale-down sent SIGTERM at once: five seconds later every stream was
    cut and clients saw HTTP 500."""
    world = World().serve()
    world.ask(drain="scaled down")
    world.rounds(1)
    assert world.phase is Phase.DRAINING
    told = routed(world.replica, world.now)
    assert told is not None
    assert told.draining
    for _ in range(5):
        world.gateway_reports("g1", draining={"u-1": 0})
        world.gateway_reports("g2", draining={"u-1": 2})
        world.rounds(30)
    assert not deletes(world)
    world.gateway_reports("g1", draining={"u-1": 0})
    world.gateway_reports("g2", draining={"u-1": 0})
    world.rounds(1)
    assert len(deletes(world)) == 1
    assert world.status.drained_by == "acknowledged"


def test_an_engine_that_lists_its_model_is_not_routed_to_before_it_generates() -> None:
    """An engine listed its model after four seconds and was sent requests, though it could not
    answer one for six minutes."""
    world = World()
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.engine_says(proven=False)
    world.rounds(60)
    assert world.phase is Phase.PROBING
    assert routed(world.replica, world.now) is None
    world.engine_says()
    world.rounds(1)
    assert routed(world.replica, world.now) is not None


def test_a_proof_of_an_earlier_process_does_not_count() -> None:
    """The same trap after a crash: what was proven before says nothing of the new process."""
    world = World()
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.engine_says()
    world.now += 30
    world.pods_are(Phase.PROBING)  # crashed and started meanwhile
    world.rounds()
    assert world.phase is Phase.PROBING


def test_loading_is_never_ended_for_being_slow() -> None:
    """Liveness probes killed engines that were loading 150 GiB of weights, again and again. How
    long a load may take is the start-up probe's to say, sized from its bytes."""
    world = World()
    world.rounds()
    world.pods_are(Phase.LOADING)
    world.rounds(1)
    world.engine_says(healthy=False)
    world.rounds(4 * 3600)
    assert world.phase is Phase.LOADING
    assert not deletes(world)


def test_deletion_ends_though_a_kind_was_never_installed() -> None:
    """An operator's finalizer waited for the cleanup of a kind that the cluster did not have, so
    that namespaces stayed Terminating for ever: what is absent is released."""

    class OnNodes(ScriptedWorkload):
        def manifests(self, replica):  # type: ignore[no-untyped-def]
            body = {"metadata": {"name": replica.name, "namespace": replica.namespace}}
            return [(LEADER_WORKER_SETS, body)]

    world = World(workload=OnNodes())
    made = world.plan()
    world.carry_out(made.actions[0])  # the reservation; the group itself is refused
    world.delete()
    made = world.round(1)
    assert world.phase is Phase.STOPPING
    assert made.again_in_seconds is not None
    world.round(made.again_in_seconds)
    world.rounds()
    assert world.body is None


def test_deletion_ends_though_nothing_was_ever_launched() -> None:
    """A cloud instance that was never launched kept its claim Terminating."""
    world = World(offers=())
    world.rounds()
    world.delete()
    world.rounds(1)
    assert world.body is None
    assert not world.pods


def test_a_pod_on_a_machine_that_is_gone_does_not_block_deletion() -> None:
    """The kubelet that should confirm the end no longer exists."""
    world = World().serve()
    world.delete()
    world.nodes.clear()
    world.rounds(1)
    assert world.body is None


def test_a_refusal_of_cleanup_is_told_and_tried_again() -> None:
    """A teardown that was answered 403 was dropped silently; the machine was paid for on."""
    world = World().serve()
    world.ask(drain="scaled down", drainTimeoutSeconds=0.0)
    made = world.plan()
    world.carry_out(made.actions[0])  # the status; the deletion is refused
    world.refused = "pods is forbidden: cannot delete"
    world.now += 1
    made = world.round()
    assert world.condition("CleanupBlocked") == ("True", Reason.CLUSTER_REFUSED)
    assert any(isinstance(it, Delete) for it in made.actions)
    assert world.status.placements


def test_a_pod_that_survives_its_replica_keeps_it_from_being_released() -> None:
    """GPUs were counted free while an orphaned machine still ran, and was paid for."""
    world = World().serve()
    world.delete()
    world.gateway_reports(draining={"u-1": 0})
    world.rounds(1)
    world.gateway_reports(draining={"u-1": 0})
    world.rounds(1)
    assert world.phase is Phase.STOPPING
    world.rounds(100_000)
    assert world.body is not None
    assert world.status.placements
    assert world.condition("CleanupBlocked") == ("True", Reason.NODE_LOST)


def test_pods_that_nobody_owns_are_swept() -> None:
    """What a removed part of a deployment had made stayed, and its GPUs were paid for."""
    left = {"metadata": {"namespace": "a", "name": "shop-0-0", "uid": "u"}}
    going = {"metadata": {**left["metadata"], "deletionTimestamp": "2027-01-01T00:00:00Z"}}
    assert [type(it) for it in plan_orphans((left,)).actions] == [Delete]
    assert not plan_orphans((going,)).actions


def test_nothing_is_made_for_what_is_being_deleted() -> None:
    """A reconcile that ran during a foreground deletion made the children again, and again."""
    world = World()
    world.delete()
    world.rounds()
    world = World()
    world.terminating = True
    world.rounds()
    assert not [it for it in world.done if isinstance(it, Create)]


def test_a_dead_pod_is_not_billed() -> None:
    """A pod was gone, its deployment still said Ready, and the meter ran."""
    world = World().serve()
    world.now += 600
    world.engine_says()
    lease = proof(world.replica, [*world.pods.values()], world.engine, watched_at=world.now)
    assert lease is not None
    died_at = world.now
    world.now += 3600
    world.pods.clear()
    assert proof(world.replica, [], world.engine, watched_at=world.now) is None
    world.nodes.clear()
    world.rounds()
    assert last_proof(lease, world.replica).published_at == died_at


@pytest.mark.parametrize("path", ["dedicated", "bare"])
def test_starting_is_free(path: str) -> None:
    """Billing begins with serving, whatever a start-up takes."""
    world = World(spec=replica_spec(path=path), workload=ScriptedWorkload(probed=path != "bare"))
    world.rounds()
    for phase in (Phase.SCHEDULED, Phase.FETCHING, Phase.LOADING):
        world.pods_are(phase)
        world.rounds(600)
        pods = [*world.pods.values()]
        assert proof(world.replica, pods, world.engine, watched_at=world.now) is None
    world.pods_are(Phase.PROBING)
    world.engine_says()
    world.rounds(1)
    served_at = world.now
    world.now += 600
    world.engine_says()
    lease = proof(world.replica, [*world.pods.values()], world.engine, watched_at=world.now)
    assert lease is not None
    assert lease.alive_since >= served_at


def test_a_machine_that_died_is_not_billed_until_that_was_noticed() -> None:
    """A kubelet's silence takes 40 s to show. A lease of a bare machine that died in that time ends
    where the kubelet was certainly alive."""
    world = World(
        spec=replica_spec(path="bare", owner_kind="GPUEndpoint"),
        workload=ScriptedWorkload(probed=False, needs_scrub=True),
    )
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.rounds(1)
    world.now += 600
    died_at = world.now - 40
    lease = proof(world.replica, [*world.pods.values()], None, watched_at=world.now)
    assert lease is not None
    assert lease.published_at <= died_at
    world.nodes["n1"] = node_body("n1", ready=False)
    world.rounds()
    assert last_proof(lease, world.replica).published_at <= died_at


def test_what_broke_before_it_was_stopped_is_billed_to_its_last_proof() -> None:
    """A container had been started anew, and that was noticed when the lease was stopped."""
    world = World(
        spec=replica_spec(path="bare", owner_kind="GPUEndpoint"),
        workload=ScriptedWorkload(probed=False, needs_scrub=True),
    )
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.rounds(1)
    world.now += 600
    lease = proof(world.replica, [*world.pods.values()], None, watched_at=world.now)
    assert lease is not None
    world.pods_are(Phase.PROBING)  # another process
    world.ask(drain="stopped")
    world.rounds()
    assert last_proof(lease, world.replica).published_at == lease.published_at


def test_what_may_have_run_unseen_is_scrubbed() -> None:
    """A lease was given up before the operator saw it run; its GPUs went to the next customer."""
    world = World(
        spec=replica_spec(path="bare", owner_kind="GPUEndpoint"),
        workload=ScriptedWorkload(probed=False, needs_scrub=True),
    )
    world.rounds(1)
    world.pods_are(Phase.LOADING)
    world.delete()
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert world.phase is Phase.SCRUBBING


def test_what_was_stopped_in_order_is_billed_to_its_end() -> None:
    """The time held back from a kubelet's word is proven by the stop it took part in."""
    world = World(
        spec=replica_spec(path="bare", owner_kind="GPUEndpoint"),
        workload=ScriptedWorkload(probed=False, needs_scrub=True),
    )
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.rounds(1)
    world.now += 600
    lease = proof(world.replica, [*world.pods.values()], None, watched_at=world.now)
    assert lease is not None
    world.ask(drain="stopped")
    world.rounds()
    stopped_at = world.now
    world.pods_end()
    world.rounds(20)
    assert last_proof(lease, world.replica).published_at == pytest.approx(stopped_at, abs=1.0)


def test_a_spot_notice_drains_before_the_machine_is_taken() -> None:
    """An orchestrator took two to twenty minutes to notice that a spot machine was gone."""
    world = World().serve()
    world.notices["n1"] = world.now + 30
    world.rounds(1)
    assert world.phase is Phase.DRAINING
    assert world.status.drain_deadline is not None
    assert seconds(world.status.drain_deadline) <= START + 1 + 30 - 5
    assert world.condition("Ready") == ("False", Reason.PREEMPTED)
    world.gateway_reports(draining={"u-1": 1})
    world.rounds(24)
    assert world.status.drained_by == "deadline"
    assert deletes(world)[0].grace_seconds is not None
    assert deletes(world)[0].grace_seconds <= 5


def test_a_notice_shortens_a_drain_that_runs() -> None:
    world = World().serve()
    world.ask(drain="rolled out")
    world.rounds(1)
    world.notices["n1"] = world.now + 15
    world.gateway_reports(draining={"u-1": 1})
    world.rounds(11)
    assert world.status.drained_by == "deadline"


def test_a_lost_node_frees_its_replicas_name_only_when_its_pods_are_proven_gone() -> None:
    world = World().serve()
    world.nodes["n1"] = node_body("n1", ready=False)
    world.rounds(1)
    assert world.phase is Phase.STOPPING
    assert world.status.failure is not None
    assert world.status.failure.reason == Reason.NODE_LOST
    assert routed(world.replica, world.now) is None
    world.rounds(3600)
    assert world.status.placements
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    world.nodes["n1"]["spec"]["taints"] = [taint]
    world.rounds(1)
    assert world.phase is Phase.FAILED
    assert not world.status.placements


def test_a_contained_memory_error_restarts_the_process_and_not_the_machine() -> None:
    """XID 94 took whole GPUs out of use though they were sound after a restart of the process."""
    world = World()
    world.nodes["n1"] = node_body("n1", gpus=4)
    world.serve()
    error = GPUError(world.now + 5, 94, "contained")
    world.gpu_errors["n1"] = (error,)
    world.rounds(10)
    assert world.phase is Phase.STOPPING
    assert world.status.failure is None
    assert world.status.xid == 94
    node = Node.of(world.nodes["n1"])
    assert plan_node(node, [error], XID_ACTIONS, world.now).actions == ()
    world.pods_end()
    world.rounds(1)
    world.rounds(moves.backoff_seconds(2) + 1)
    world.pods_are(Phase.PROBING)
    world.engine_says()
    world.rounds(1)
    assert world.phase is Phase.SERVING


def test_a_contained_error_on_a_shared_node_leaves_the_others_alone() -> None:
    """Which of a node's engines it hit is not told: the one it hit fails by itself."""
    world = World().serve()
    world.gpu_errors["n1"] = (GPUError(world.now + 5, 94),)
    world.rounds(10)
    assert world.phase is Phase.SERVING
    assert world.condition("GPUHealthy") == ("False", Reason.GPU_FAULT)


def test_a_context_switch_timeout_takes_the_node_out_of_use() -> None:
    """XID 109 was ignored: the GPU stayed allocatable though it had to be reset."""
    world = World().serve()
    error = GPUError(world.now + 5, 109)
    world.gpu_errors["n1"] = (error,)
    world.rounds(10)
    assert world.phase is Phase.DRAINING
    assert world.condition("Ready") == ("False", Reason.GPU_FAULT)
    patches = plan_node(Node.of(world.nodes["n1"]), [error], XID_ACTIONS, world.now).actions
    assert len(patches) == 1


def test_a_store_that_is_down_ends_nothing() -> None:
    """Silence of the store is no zero: drains wait, leases go on, nothing is unproven."""
    world = World().serve()
    world.gateways = None
    world.rounds(3600)
    assert world.phase is Phase.SERVING
    world.engine_says()
    lease = proof(world.replica, [*world.pods.values()], world.engine, watched_at=world.now)
    assert lease is not None
    assert lease.published_at - lease.alive_since > 3500
