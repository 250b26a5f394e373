"""A replica's life, transition by transition."""

import pytest
from support.replica_world import START, ScriptedWorkload, World, node_body, replica_spec

from controlplane.cluster import LEADER_WORKER_SETS, NETWORK_POLICIES, PODS
from controlplane.crd.base import seconds
from controlplane.crd.conditions import Reason
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.replica import Phase, Placement, Replica
from controlplane.operator.actions import ApplyStatus, Create, Delete
from controlplane.operator.replica import ends, moves, steps
from controlplane.operator.replica.workload import Manifest


class GroupWorkload(ScriptedWorkload):
    """Pods that another kind makes, with a policy beside them."""

    def manifests(self, replica: Replica) -> list[Manifest]:
        body = {"metadata": {"name": replica.name, "namespace": replica.namespace}}
        return [(LEADER_WORKER_SETS, body), (NETWORK_POLICIES, body)]


def bare_world() -> World:
    world = World(
        spec=replica_spec(path="bare", owner_kind="GPUEndpoint", model="", engine=None),
        workload=ScriptedWorkload(probed=False, needs_scrub=True),
    )
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.rounds(1)
    assert world.phase is Phase.SERVING
    return world


def proof(ok: bool) -> ScrubProof:
    return ScrubProof(at="2027-01-01T00:00:00Z", ok=ok, message="" if ok else "7 MiB left")


def test_without_free_gpus_it_waits_and_says_so() -> None:
    world = World(offers=())
    world.rounds()
    assert world.phase is Phase.PENDING
    assert world.condition("CapacityReserved") == ("False", Reason.WAITING_FOR_CAPACITY)
    assert not world.pods


def test_the_reservation_is_written_before_its_pods_are_made() -> None:
    world = World()
    actions = world.round().actions
    assert [type(it) for it in actions] == [ApplyStatus, Create]
    assert world.status.placements == [Placement(node="n1", gpus=4)]
    assert world.phase is Phase.RESERVED


def test_a_gang_gets_a_pod_for_each_of_its_nodes() -> None:
    world = World(offers=(Placement(node="n1", gpus=4), Placement(node="n2", gpus=4)))
    world.nodes["n2"] = node_body("n2")
    world.rounds()
    assert sorted(world.pods) == ["shop-0-0", "shop-0-1"]


@pytest.mark.parametrize("phase", [Phase.SCHEDULED, Phase.FETCHING, Phase.LOADING])
def test_it_is_as_far_as_its_pods(phase: Phase) -> None:
    world = World()
    world.rounds()
    world.pods_are(phase)
    world.rounds(5)
    assert world.phase is phase
    assert world.status.stages[-1].seconds == 5.0
    assert world.condition("Ready") == ("False", Reason.STARTING)


def test_it_serves_with_its_address_and_context_once_proven() -> None:
    world = World().serve()
    assert world.status.url == "http://10.0.0.1:8000"
    assert world.status.max_model_len == 4096
    assert world.condition("Ready") == ("True", Reason.AS_WANTED)


def test_at_rest_nothing_is_written() -> None:
    world = World().serve()
    world.now += 1e6
    assert world.plan().actions == ()
    assert world.plan().again_in_seconds is None


def test_what_is_not_finalized_is_finalized_first() -> None:
    world = World()
    assert world.body is not None
    world.body["metadata"]["finalizers"] = ["other/one"]
    world.round()
    assert world.body["metadata"]["finalizers"] == ["other/one", "flashplane.io/release"]
    assert not world.pods


def test_gpus_whose_pods_never_get_a_node_are_given_back() -> None:
    world = World()
    world.rounds()
    plan = world.round()
    assert plan.again_in_seconds is not None
    assert plan.again_in_seconds <= moves.PENDING_SECONDS + 1
    world.rounds(moves.PENDING_SECONDS + 1)
    assert world.phase is Phase.FAILED
    assert world.status.failure is not None
    assert world.status.failure.reason == Reason.PENDING_TOO_LONG
    assert world.status.placements == []
    assert not world.pods


def test_a_crash_is_left_to_the_kubelet_first() -> None:
    world = World().serve()
    world.pods_are(Phase.LOADING, Reason.ENGINE_FAILED, message="exit 1")
    world.pods["shop-0-0"]["status"]["containerStatuses"] = [{"restartCount": 1, "state": {}}]
    world.rounds(1)
    assert world.phase is Phase.LOADING
    assert "deletionTimestamp" not in world.pods["shop-0-0"]["metadata"]


def test_an_engine_started_anew_must_prove_itself_again() -> None:
    world = World().serve()
    world.now += 100
    world.pods_are(Phase.PROBING)
    world.rounds()
    assert world.phase is Phase.PROBING
    first = world.status.serving_since
    world.engine_says()
    world.rounds(1)
    assert world.phase is Phase.SERVING
    assert world.status.serving_since == first


def test_new_pods_wait_longer_after_each_failure_until_it_is_given_up() -> None:
    world = World()
    world.rounds()
    waits = []
    while world.phase is not Phase.FAILED:
        world.pods_are(Phase.FETCHING, Reason.WEIGHTS_UNAVAILABLE, message="404")
        world.rounds(1)
        world.pods_end()
        world.rounds()
        if world.phase is Phase.RESERVED:
            began = world.now
            while not world.round().actions:
                world.now += world.plan().again_in_seconds or 0.0
            waits.append(round(world.now - began))
    assert waits == [5, 10]
    assert world.status.attempts == steps.MAX_ATTEMPTS
    assert world.condition("Ready") == ("False", Reason.WEIGHTS_UNAVAILABLE)


def test_what_cannot_be_retried_is_given_up_at_once() -> None:
    world = World()
    world.rounds()
    world.pods_are(Phase.SCHEDULED, Reason.IMAGE_UNAVAILABLE, message="bad", retryable=False)
    world.rounds(1)
    world.pods_end()
    world.rounds()
    assert world.phase is Phase.FAILED
    assert world.status.failure is not None
    assert not world.status.failure.retryable


def test_an_engine_that_never_completes_a_generation_is_started_anew() -> None:
    world = World()
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.engine_says(proven=False, error="HTTP 500")
    world.rounds(1)
    assert world.phase is Phase.PROBING
    world.rounds(steps.PROBE_SECONDS + 1)
    assert world.phase is Phase.STOPPING
    world.pods_end()
    world.rounds()
    assert (world.phase, world.status.attempts) == (Phase.RESERVED, 2)


def test_an_engine_that_does_not_answer_is_degraded_and_comes_back() -> None:
    world = World().serve()
    world.engine_says(healthy=False, error="HTTP 503")
    world.rounds(1)
    assert world.phase is Phase.DEGRADED
    world.engine_says()
    world.rounds(1)
    assert world.phase is Phase.SERVING


def test_an_engine_that_does_not_come_back_is_started_anew() -> None:
    world = World().serve()
    world.engine_says(healthy=False)
    world.rounds(1)
    world.rounds(steps.DEGRADED_SECONDS + 1)
    assert world.phase is Phase.STOPPING
    assert world.status.failure is None


def test_silence_about_an_engine_leaves_it_serving() -> None:
    world = World().serve()
    world.engine = None
    world.gateways = None
    world.rounds(1000)
    assert world.phase is Phase.SERVING


def test_a_pod_deleted_by_hand_is_made_again_on_the_same_gpus() -> None:
    world = World().serve()
    world.pods.clear()
    world.rounds(1)
    assert world.phase is Phase.RESERVED
    assert world.status.placements == [Placement(node="n1", gpus=4)]


def test_one_lost_rank_ends_its_whole_gang() -> None:
    world = World(offers=(Placement(node="n1", gpus=4), Placement(node="n2", gpus=4)))
    world.nodes["n2"] = node_body("n2")
    world.serve()
    del world.pods["shop-0-1"]
    world.rounds(1)
    assert world.phase is Phase.STOPPING
    assert "deletionTimestamp" in world.pods["shop-0-0"]["metadata"]


def test_a_replica_never_served_goes_at_once() -> None:
    world = World()
    world.rounds()
    world.pods_are(Phase.LOADING)
    world.ask(drain="scaled down")
    world.rounds(1)
    assert world.phase is Phase.STOPPING
    assert world.status.drained_by == "unserved"


def test_the_drain_deadline_holds_even_if_requests_run() -> None:
    world = World().serve()
    world.ask(drain="rolled out", drainTimeoutSeconds=60.0)
    world.rounds(1)
    for _ in range(5):
        world.gateway_reports(draining={"u-1": 3})
        world.rounds(10)
    assert world.phase is Phase.DRAINING
    world.gateway_reports(draining={"u-1": 3})
    world.rounds(11)
    assert (world.phase, world.status.drained_by) == (Phase.STOPPING, "deadline")


def test_a_shorter_drain_timeout_takes_effect_while_it_drains() -> None:
    world = World().serve()
    world.ask(drain="rolled out")
    world.rounds(1)
    world.ask(drainTimeoutSeconds=5.0)
    world.rounds(6)
    assert world.phase is Phase.STOPPING


def test_a_gateway_that_fell_silent_proves_nothing_but_its_engine_may() -> None:
    world = World().serve()
    world.gateway_reports("g2", inflight={"u-1": 1})
    world.ask(drain="rolled out")
    world.rounds(20)
    world.gateway_reports("g1", draining={"u-1": 0})
    world.rounds(1)
    assert world.phase is Phase.DRAINING
    world.engine_says(running=1)
    world.gateway_reports("g1", draining={"u-1": 0})
    world.rounds(15)
    assert world.phase is Phase.DRAINING
    world.gateway_reports("g1", draining={"u-1": 0})
    world.engine_says()
    world.rounds(1)
    assert world.phase is Phase.STOPPING


def test_a_report_from_before_the_drain_is_no_acknowledgement() -> None:
    world = World().serve()
    world.gateway_reports("g1", draining={"u-1": 0})
    world.now += 2
    world.ask(drain="rolled out")
    world.rounds()
    assert world.phase is Phase.DRAINING


def test_with_the_store_down_a_drain_waits_for_its_deadline() -> None:
    world = World().serve()
    world.gateways = None
    world.ask(drain="rolled out", drainTimeoutSeconds=60.0)
    world.rounds(1)
    world.engine_says()
    world.rounds(58)
    assert world.phase is Phase.DRAINING
    world.rounds(3)
    assert world.status.drained_by == "deadline"


def test_without_its_owner_it_drains() -> None:
    world = World().serve()
    world.owner_exists = False
    world.rounds(1)
    assert world.phase is Phase.DRAINING
    assert world.condition("Ready") == ("False", Reason.DELETING)


def test_a_pod_that_others_delete_gets_no_new_work_meanwhile() -> None:
    world = World().serve()
    world.pods["shop-0-0"]["metadata"]["deletionTimestamp"] = "2027-01-15T08:10:00Z"
    world.now = seconds("2027-01-15T08:00:00Z")
    world.rounds()
    assert world.phase is Phase.DRAINING
    assert world.status.drain_deadline == "2027-01-15T08:10:00Z"


def test_a_bare_lease_is_scrubbed_before_its_gpus_are_free() -> None:
    world = bare_world()
    world.ask(drain="stopped")
    world.rounds(1)
    assert world.phase is Phase.STOPPING
    world.pods_end()
    world.rounds(1)
    assert world.phase is Phase.SCRUBBING
    assert list(world.pods) == ["shop-0-scrub"]
    assert world.status.placements
    world.pods["shop-0-scrub"]["status"]["proof"] = proof(True)
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert world.body is None


def test_gpus_not_proven_clean_stay_reserved_until_somebody_vouches() -> None:
    world = bare_world()
    world.ask(drain="stopped")
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    world.pods["shop-0-scrub"]["status"]["proof"] = proof(False)
    world.rounds(1)
    world.pods_end()
    world.delete()
    world.rounds(1e6)
    assert world.phase is Phase.QUARANTINED
    assert world.status.placements
    assert world.condition("CleanupBlocked") == ("True", Reason.SCRUB_FAILED)
    assert world.body is not None
    world.body["metadata"]["annotations"] = {"flashplane.io/proven-clean": "kim"}
    world.rounds(1)
    assert world.body is None


def test_a_scrub_that_never_ends_quarantines() -> None:
    world = bare_world()
    world.ask(drain="stopped")
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    world.rounds(ends.SCRUB_SECONDS + 1)
    assert world.phase is Phase.QUARANTINED


def test_where_no_scrub_pod_can_be_made_the_node_is_taken_out_of_use() -> None:
    world = bare_world()
    world.terminating = True
    world.delete()
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert "quarantined" in str(world.nodes["n1"]["metadata"]["annotations"])
    assert world.body is None


def test_a_lease_that_ends_before_its_start_was_noticed_is_scrubbed_all_the_same() -> None:
    world = World(workload=ScriptedWorkload(probed=False, needs_scrub=True))
    world.rounds()
    world.pods_are(Phase.PROBING)
    world.delete()
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert world.phase is Phase.SCRUBBING


def test_a_lease_whose_pod_never_had_a_node_needs_no_scrub() -> None:
    world = World(workload=ScriptedWorkload(probed=False, needs_scrub=True))
    world.rounds()
    world.rounds(moves.PENDING_SECONDS + 1)
    assert world.phase is Phase.FAILED


def test_a_lease_whose_pod_got_its_node_while_it_was_given_up_is_scrubbed() -> None:
    world = World(workload=ScriptedWorkload(probed=False, needs_scrub=True))
    world.rounds()
    world.now += moves.PENDING_SECONDS + 1
    made = world.plan()
    world.carry_out(made.actions[0])
    world.pods_are(Phase.LOADING)
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert world.phase is Phase.SCRUBBING


def test_a_scrub_ends_with_its_machine() -> None:
    world = bare_world()
    world.ask(drain="stopped")
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert world.phase is Phase.SCRUBBING
    world.nodes.clear()
    world.rounds(1)
    assert world.body is None


def test_gpus_that_are_gone_need_no_scrub() -> None:
    world = bare_world()
    world.nodes.clear()
    world.rounds(1)
    assert world.phase is Phase.FAILED
    assert world.status.failure is not None
    assert world.status.failure.reason == Reason.NODE_LOST


def test_deletions_name_the_pod_that_was_seen() -> None:
    world = World().serve()
    world.ask(drain="x", drainTimeoutSeconds=0.0)
    world.rounds(1)
    deletes = [it for it in world.done if isinstance(it, Delete) and it.resource is PODS]
    assert [it.uid for it in deletes] == ["p-1"]


def test_a_refused_write_is_told_while_it_ends() -> None:
    world = World().serve()
    world.ask(drain="x", drainTimeoutSeconds=0.0)
    world.rounds(1)
    world.refused = "pods is forbidden"
    world.rounds(1)
    assert world.condition("CleanupBlocked") == ("True", Reason.CLUSTER_REFUSED)
    world.refused = ""
    world.rounds(1)
    assert world.condition("CleanupBlocked") == ("", "")


def test_the_clock_of_a_plan_moves_no_timestamps_by_itself() -> None:
    world = World().serve()
    since = world.status.phase_since
    assert since is not None
    assert seconds(since) == START + 1
    world.rounds(500)
    assert world.status.phase_since == since


def test_what_makes_pods_is_deleted_and_what_is_beside_them_goes_with_the_replica() -> None:
    world = World()
    world.rounds()
    world.workload = GroupWorkload()
    world.body["spec"]["drain"] = "Stopped"  # type: ignore[index]
    for _ in range(3):
        world.round()
    deleted = {it.resource for it in world.done if isinstance(it, Delete)}
    assert LEADER_WORKER_SETS in deleted
    assert NETWORK_POLICIES not in deleted


def test_why_the_last_start_failed_is_told_until_one_succeeds() -> None:
    world = World()
    world.rounds()
    world.pods_are(Phase.LOADING, Reason.ENGINE_FAILED, message="No such option")
    world.pods["shop-0-0"]["status"]["containerStatuses"] = [{"restartCount": 1, "state": {}}]
    world.rounds(1)
    world.pods_are(Phase.LOADING)
    world.rounds(1)
    assert world.condition("Ready") == ("False", Reason.ENGINE_FAILED)
    world.pods_are(Phase.PROBING)
    world.engine_says(max_model_len=4096)
    world.rounds(1)
    assert world.condition("Ready") == ("True", Reason.AS_WANTED)
