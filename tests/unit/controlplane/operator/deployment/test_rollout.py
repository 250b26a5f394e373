import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deployment_world import World, dedicated, spec

from controlplane.crd.replica import Phase
from controlplane.operator.actions import Action, ApplyStatus, Create, Patch
from controlplane.operator.deployment.rollout import weights
from controlplane.registry.gateways import Latency

NEW = {"name": "flash", "maxModelLen": 4096}
STEPS = [{"weight": 10, "seconds": 60}, {"weight": 50, "seconds": 60}]
GOOD = Latency(ttft_p95_ms=200.0, requests=40)
BAD = Latency(ttft_p95_ms=200.0, requests=40, errors=20)
SLOW = Latency(ttft_p95_ms=900.0, requests=40)


def rolling(*, steps: list[dict[str, int]] = STEPS, **parts: object) -> World:
    """A deployment of two that serves, and whose spec has just changed."""
    rollout = {"canarySteps": steps, "startSeconds": 300}
    world = World(dedicated(**{"replicas": 2, "rollout": rollout, **parts}))
    world.run(30)
    assert len(world.serving) == 2
    world.change(engine=NEW)
    world.log.clear()
    return world


def current(world: World) -> list[str]:
    return [it.name for it in world.replicas if it.spec.revision == world.state.current_revision]


def candidates(world: World) -> list[str]:
    return [it.name for it in world.live if it.spec.revision != world.state.current_revision]


def tell(world: World, ours: Latency, theirs: Latency) -> None:
    """Let gateways report the candidates' and the current revision's last minute."""
    new = set(candidates(world))
    world.gateways = (
        world.report(latency={it.uid: ours if it.name in new else theirs for it in world.serving}),
    )


def test_a_candidate_gets_no_traffic_before_it_serves() -> None:
    world = rolling()
    world.tick()
    (name,) = candidates(world)
    (created,) = [it for it in world.log if isinstance(it, Create)]
    assert created.body["spec"]["weight"] == 0
    world.run(10)
    weight = {it.name: it.spec.weight for it in world.replicas}
    assert weight.pop(name) == 0
    assert set(weight.values()) == {100}
    world.run(15)
    weight = {it.name: it.spec.weight for it in world.replicas}
    assert weight[name] / sum(weight.values()) == pytest.approx(0.1, abs=0.01)


def test_steps_take_their_time_and_their_requests() -> None:
    world = rolling()
    world.run(30)
    tell(world, Latency(ttft_p95_ms=200.0, requests=0), GOOD)
    world.run(120)
    assert world.state.rollout is not None
    assert world.state.rollout.step == 0, "the candidate had no requests yet"
    tell(world, GOOD, GOOD)
    world.run(2)
    assert world.state.rollout.step == 1
    weight = {it.name: it.spec.weight for it in world.live}
    (name,) = candidates(world)
    assert weight[name] / sum(weight.values()) == pytest.approx(0.5, abs=0.01)


def test_without_any_traffic_a_rollout_goes_on_by_time_alone() -> None:
    world = rolling()
    world.run(400)
    assert world.state.rollout is None
    assert {it.spec.revision for it in world.serving} == {world.state.current_revision}
    assert [it.spec.weight for it in world.serving] == [100, 100]


def test_without_reports_a_step_is_not_passed() -> None:
    world = rolling()
    world.run(30)
    world.gateways = None
    world.run(600)
    assert world.state.rollout is not None
    assert world.state.rollout.step == 0, "nobody knows how the candidate does"


def test_as_many_as_wanted_serve_all_the_time() -> None:
    world = rolling()
    for _ in range(400):
        world.tick()
        if world.serving:
            tell(world, GOOD, GOOD)
        assert len(world.serving) >= 2
        assert len(world.live) <= 3
    assert world.state.rollout is None
    assert len(world.serving) == 2


@pytest.mark.parametrize("ours", [BAD, SLOW])
def test_a_worse_candidate_gives_its_traffic_back_before_anything_else(ours: Latency) -> None:
    world = rolling()
    world.run(30)
    (name,) = candidates(world)
    tell(world, GOOD, GOOD)
    world.run(60)
    assert {it.spec.weight for it in world.replicas if it.name in current(world)} != {0}
    tell(world, ours, GOOD)
    world.log.clear()
    world.tick()
    first_drain = next(i for i, it in enumerate(world.log) if _drains(it, name))
    status = next(i for i, it in enumerate(world.log) if isinstance(it, ApplyStatus))
    raised = [i for i, it in enumerate(world.log) if _raises(it, current(world))]
    assert raised, "the current revision had less than its full weight"
    assert max(raised) < status < first_drain
    world.run(60)
    assert [it.spec.weight for it in world.serving] == [100, 100]
    assert not candidates(world)
    assert world.condition("Progressing") == ("False", "CanaryAborted")


def _drains(action: Action, name: str) -> bool:
    return isinstance(action, Patch) and action.name == name and "drain" in action.change["spec"]


def _raises(action: Action, names: list[str]) -> bool:
    return (
        isinstance(action, Patch)
        and action.name in names
        and action.change["spec"].get("weight") == 100
    )


def test_a_refused_revision_is_not_tried_again_until_the_spec_moved_on() -> None:
    world = rolling(steps=[])
    world.tick()
    world.faulty.add(next(it.spec.revision for it in world.live if it.name in candidates(world)))
    world.run(400)
    assert world.state.refused_revision in world.faulty
    world.faulty.clear()
    world.run(100)
    assert not candidates(world)
    world.change(engine={"name": "flash"})
    world.run(5)
    assert world.state.refused_revision == ""
    assert world.condition("Progressing")[0] == "False"
    world.change(engine=NEW)
    world.run(100)
    assert world.state.rollout is None
    assert world.condition("Ready") == ("True", "AsWanted")


def test_a_refused_spec_still_replaces_lost_replicas_by_the_revision_that_works() -> None:
    world = rolling(steps=[])
    world.tick()
    healthy = world.state.current_revision
    world.faulty.add(next(it.spec.revision for it in world.live if it.name in candidates(world)))
    world.run(400)
    for it in world.serving:
        world.fail(it.name, "NodeLost")
    world.run(90)
    assert [it.spec.revision for it in world.serving] == [healthy, healthy]
    assert world.serving[0].spec.engine is not None
    assert world.serving[0].spec.engine.max_model_len is None


def test_a_candidate_that_ends_after_it_served_is_given_up() -> None:
    world = rolling()
    world.run(30)
    (name,) = candidates(world)
    world.fail(name, "EngineFailed")
    world.tick()
    assert world.state.refused_revision
    assert world.state.rollout is not None
    assert "EngineFailed" in (world.state.rollout.aborted or "")


def test_a_candidate_that_lost_its_node_is_not_to_blame() -> None:
    world = rolling()
    world.run(30)
    (name,) = candidates(world)
    world.fail(name, "NodeLost")
    world.run(40)
    assert world.state.refused_revision == ""
    assert world.state.rollout is not None
    assert len(candidates(world)) == 1


def test_going_back_in_the_middle_keeps_what_serves_until_enough_others_do() -> None:
    world = rolling(steps=[])
    while len([it for it in world.serving if it.name in candidates(world)]) < 1:
        world.tick()
    world.run(3)
    world.change(engine={"name": "flash"})
    for _ in range(120):
        world.tick()
        assert len(world.serving) >= 2
    assert {it.spec.revision for it in world.live} == {world.state.current_revision}
    assert world.state.rollout is None


def test_without_room_for_a_candidate_nothing_is_taken_away() -> None:
    world = rolling(budgetGPUs=8)
    uids = {it.uid for it in world.serving}
    world.run(60)
    assert {it.uid for it in world.serving} == uids
    assert world.condition("Progressing") == ("False", "QuotaExceeded")
    assert world.condition("Ready") == ("True", "AsWanted")
    world.change(budgetGPUs=12)
    world.run(400)
    assert not uids & {it.uid for it in world.serving}


def test_a_version_that_never_served_is_replaced_at_once() -> None:
    world = World(dedicated(replicas=1))
    world.tick()
    world.faulty.add(world.state.current_revision)
    world.run(30)
    world.change(engine=NEW)
    world.run(40)
    assert len(world.serving) == 1
    assert world.state.refused_revision == ""


def test_scaling_is_frozen_while_a_revision_rolls_out() -> None:
    bounds = {"min": 1, "max": 5, "targetInflight": 2}
    world = World(spec(scaling=bounds, rollout={"canarySteps": STEPS}))
    world.run(40)
    world.change(engine=NEW)
    world.run(3)
    world.load(inflight=8)
    world.run(15)
    assert world.state.desired == 1
    assert world.condition("ScalingActive") == ("False", "RollingOut")


def test_a_stop_ends_a_rollout_and_all_replicas() -> None:
    world = rolling()
    world.run(30)
    world.change(stopped=True)
    world.run(30)
    assert not world.replicas
    assert world.state.rollout is None
    assert world.condition("Ready") == ("True", "Stopped")
    assert world.state.phase == "Stopped"


def test_a_configuration_that_is_no_longer_listed_is_left_without_a_gap() -> None:
    from support.deployment_world import configuration

    both = {"h200-x4": configuration(), "b200-x4": configuration("b200-x4")}
    world = World(dedicated(replicas=2), catalogue=both)
    world.run(30)
    world.change(configurations=["b200-x4"])
    for _ in range(100):
        world.tick()
        assert len(world.serving) >= 2
    assert {it.spec.configuration.id for it in world.live} == {"b200-x4"}
    assert len(world.live) == 2


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 99))
def test_weights_give_the_candidates_their_share(old: int, new: int, share: int) -> None:
    full, part = weights(old, new, share)
    assert 1 <= full <= 100
    assert 1 <= part <= 100
    real = 100 * new * part / (old * full + new * part)
    exact = share * old / (new * (100 - share))  # a candidate's weight over a current's
    if 0.05 <= exact <= 20:
        assert abs(real - share) <= 3


def test_every_write_of_a_rollout_may_be_the_operators_last() -> None:
    """Killed after each single write, the next operator still ends the same rollout."""
    for writes in range(1, 25):
        world = rolling(steps=[])
        world.writes_left = writes
        for _ in range(150):
            world.tick()
            assert len(world.serving) >= 2
            assert len(world.replicas) <= 3
        assert world.state.rollout is None
        assert {it.spec.revision for it in world.live} == {world.state.current_revision}
        assert not [it for it in world.log if isinstance(it, Create)][8:]
        assert all(it.status.phase is Phase.SERVING for it in world.live)
