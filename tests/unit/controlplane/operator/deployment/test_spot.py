from support.deployment_world import World, configuration, spec

CATALOGUE = {
    "spot": configuration("spot", spot=True),
    "h200": configuration("h200"),
    "h100": configuration("h100"),
}


def world(**parts: object) -> World:
    listed = {"configurations": ["spot", "h200"], "replicas": 3}
    return World(spec(**{**listed, **parts}), catalogue=CATALOGUE)


def kinds(subject: World) -> list[str]:
    return sorted(it.spec.configuration.id for it in subject.live)


def test_the_preferred_configuration_is_taken_first() -> None:
    subject = world(configurations=["h200", "h100"])
    subject.run(30)
    assert kinds(subject) == ["h200", "h200", "h200"]


def test_a_configuration_without_stock_is_passed_over() -> None:
    subject = world(configurations=["h200", "h100"])
    subject.stock = {"h200": 1, "h100": 5}
    subject.run(30)
    assert kinds(subject) == ["h100", "h100", "h200"]


def test_the_base_is_never_on_spot() -> None:
    subject = world(spot={"onDemandBase": 1})
    subject.run(30)
    assert kinds(subject) == ["h200", "spot", "spot"]
    assert [it.spec.spot for it in subject.live].count(False) == 1


def test_without_fallback_replicas_wait_for_spot() -> None:
    subject = world(spot={"fallback": False})
    subject.stock = {"spot": 1, "h200": 5}
    subject.run(200)
    assert kinds(subject) == ["spot", "spot", "spot"]
    assert len(subject.serving) == 1


def test_a_notice_brings_an_on_demand_replica_before_the_node_is_gone() -> None:
    subject = world(replicas=1)
    subject.run(30)
    (noticed,) = subject.serving
    assert noticed.spec.spot
    subject.notices[f"node-{noticed.name}"] = subject.now + 120
    subject.tick()
    (other,) = [it for it in subject.live if it.name != noticed.name]
    assert not other.spec.spot
    assert [it for it in subject.serving if it.name == noticed.name], "it serves on meanwhile"
    subject.run(30)
    assert len(subject.serving) == 2
    subject.fail(noticed.name, "Preempted")
    subject.run(5)
    assert [it.name for it in subject.serving] == [other.name]


def test_within_a_budget_the_replacement_waits_for_the_noticed_one_to_go() -> None:
    subject = world(replicas=1, budgetGPUs=4)
    subject.run(30)
    (noticed,) = subject.serving
    subject.notices[f"node-{noticed.name}"] = subject.now + 120
    subject.run(10)
    assert len(subject.replicas) == 1
    subject.fail(noticed.name, "Preempted")
    subject.run(40)
    assert len(subject.serving) == 1


def test_gpus_that_did_not_come_in_time_are_looked_for_elsewhere() -> None:
    subject = world(configurations=["h200", "h100"], replicas=1)
    subject.tick()
    subject.fail("chat-0", "PendingTooLong")
    subject.run(30)
    assert kinds(subject) == ["h100"]


def test_starts_that_fail_at_once_are_tried_about_once_a_minute() -> None:
    subject = world(configurations=["h200"], replicas=1)
    starts = 0
    for _ in range(1200):
        subject.tick()
        for replica in subject.live:
            starts += 1
            subject.fail(replica.name, "EngineFailed")
    assert 10 <= starts <= 25


def test_a_start_that_can_never_succeed_is_tried_once() -> None:
    subject = world(configurations=["h200"], replicas=1)
    subject.tick()
    subject.fail("chat-0", "WeightsUnavailable", retryable=False)
    subject.run(2000, step=10)
    assert not subject.live
    assert subject.condition("Progressing") == ("False", "WeightsUnavailable")
    assert subject.state.phase == "Failed"
    subject.change(weights={"pvc": {"claim": "others"}})
    subject.run(40)
    assert len(subject.serving) == 1
