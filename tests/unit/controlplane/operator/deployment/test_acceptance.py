import pytest
from support.deployment_world import World, configuration, dedicated, spec

from controlplane.crd.base import Suspension
from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.operator.actions import Create, Emit
from controlplane.operator.deployment.observed import Verdict
from controlplane.operator.deployment.verdict import verdicts

REFUSED = {"h200-x4": Verdict(Reason.DOES_NOT_FIT, "12.3 GiB short on each GPU")}
CASES = {
    "unknown configuration": (spec(configurations=["b300"]), "UnknownConfiguration"),
    "unknown zone": (spec(windows=[{"timezone": "Mars/Olympus"}]), "InvalidSpec"),
    "too small a budget": (spec(budgetGPUs=3), "QuotaExceeded"),
    "no on-demand base": (spec(spot={"onDemandBase": 1}, configurations=["spot"]), "InvalidSpec"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_made_true_is_refused_in_words_and_nothing_is_made(case: str) -> None:
    body, reason = CASES[case]
    catalogue = {"h200-x4": configuration(), "spot": configuration("spot", spot=True)}
    world = World(body, catalogue=catalogue)
    world.run(5)
    assert world.condition("Accepted") == ("False", reason)
    assert world.condition("Ready") == ("False", reason)
    assert not [it for it in world.log if isinstance(it, Create)]
    assert len([it for it in world.log if isinstance(it, Emit)]) == 1


def test_the_planners_refusal_is_told_with_its_figures() -> None:
    world = World(spec(), verdicts=REFUSED)
    world.tick()
    assert world.condition("Accepted") == ("False", "DoesNotFit")
    accepted = next(it for it in world.state.conditions if it.type == "Accepted")
    assert accepted.message == "h200-x4: 12.3 GiB short on each GPU"


def test_a_namespace_of_another_tenant_is_refused() -> None:
    world = World(dedicated(), tenant="others")
    world.tick()
    assert world.condition("Accepted") == ("False", "NamespaceNotTenant")
    pool = World(spec(), tenant="acme")
    pool.tick()
    assert pool.condition("Accepted") == ("False", "NamespaceNotTenant")


def test_a_spec_that_became_impossible_leaves_what_runs_and_can_still_be_stopped() -> None:
    world = World(spec(replicas=2))
    world.run(30)
    world.change(configurations=["nowhere"])
    world.run(30)
    assert len(world.serving) == 2
    world.change(stopped=True)
    world.run(10)
    assert not world.replicas


@pytest.mark.parametrize("why", sorted(Suspension))
def test_nothing_runs_in_a_suspended_namespace_until_it_is_no_more(why: Suspension) -> None:
    world = World(dedicated(replicas=2))
    world.run(30)
    assert len(world.serving) == 2
    world.suspended = why
    world.run(30)
    assert not world.replicas
    assert world.condition("Ready") == ("True", "Stopped")
    ready = next(it for it in world.state.conditions if it.type == "Ready")
    assert "tenant" in ready.message
    world.suspended = ""
    world.run(30)
    assert len(world.serving) == 2


def test_one_unknown_configuration_among_others_is_named_and_passed_over() -> None:
    world = World(spec(configurations=["nowhere", "h200-x4"]))
    world.run(30)
    accepted = next(it for it in world.state.conditions if it.type == "Accepted")
    assert (accepted.status, accepted.message) == ("True", "not used: nowhere")
    assert len(world.serving) == 1


def test_windows_stop_and_start_it() -> None:
    # 2026-09-21 was a Monday; the world begins at 14:13 UTC.
    window = [{"days": ["mon"], "start": "14:00", "end": "14:20"}]
    world = World(spec(windows=window))
    world.run(60)
    assert len(world.serving) == 1
    world.run(400, step=5)
    assert not world.replicas
    assert world.condition("Ready") == ("True", "Stopped")
    again = world.reconcile().again_in_seconds
    assert again is not None
    assert 6 * 86_400 < again < 7 * 86_400


def test_a_scheduled_minimum_holds_for_its_time_and_then_lets_go() -> None:
    schedules = [{"min": 3, "start": "14:00", "end": "14:20"}]
    bounds = {"min": 1, "max": 4, "schedules": schedules, "stabilizationSeconds": 30}
    world = World(spec(scaling=bounds))
    world.load(inflight=1)
    world.run(60)
    assert len(world.serving) == 3
    world.run(600, step=5)
    assert len(world.serving) == 1


def test_the_planner_judges_each_listed_configuration_once() -> None:
    world = World(spec(engine={"name": "vllm", "maxModelLen": 100_000}))
    catalogue = {
        "h200-x4": configuration(),
        "rtx": GPUConfiguration(id="rtx", gpu="RTX", memory_gib=31, architecture="blackwell"),
    }
    listed = world.deployment.spec.model_copy(update={"configurations": ["h200-x4", "rtx", "x"]})
    found = verdicts(listed, catalogue)
    assert found.keys() == {"h200-x4", "rtx"}
    assert found["rtx"].refused is not None
    assert found["h200-x4"].refused is None
    assert found["h200-x4"].inflight > 1
    assert found["h200-x4"].start_seconds
