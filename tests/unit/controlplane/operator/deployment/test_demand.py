from support.deployment_world import KEY, World, spec

from controlplane.crd.inference import AbortOn
from controlplane.operator.deployment.demand import GIVEN_UP_SECONDS, Demand, demand, evidence
from controlplane.operator.deployment.history import History
from controlplane.operator.deployment.judgement import Evidence, worse
from controlplane.operator.signals import EngineState, Signals
from controlplane.registry.gateways import GatewayReport, Latency

NOW = 1_790_000_100.0


def serving() -> World:
    world = World(spec(replicas=2))
    world.run(30)
    return world


def read(world: World, *reports: GatewayReport, told: bool = True) -> Demand:
    engines = (
        {it.uid: EngineState(NOW, True, kv_usage=0.25) for it in world.serving} if told else {}
    )
    return demand(Signals(reports or None, engines), KEY, world.serving, NOW)


def test_all_gateways_requests_add_up() -> None:
    world = serving()
    a, b = (it.uid for it in world.serving)
    found = read(
        world,
        GatewayReport("x", NOW, inflight={a: 3, "stranger": 9}, held={KEY: 2, "other/pool": 5}),
        GatewayReport("y", NOW, inflight={a: 1, b: 2}),
    )
    assert (found.held, found.inflight, found.load, found.kv) == (2, 6, 8, 0.5)
    assert found.complete


def test_without_reports_the_load_is_unknown_not_zero() -> None:
    found = read(serving())
    assert found.load is None
    assert not found.complete


def test_a_gateway_that_fell_silent_is_missing_until_it_is_given_up() -> None:
    world = serving()
    fresh = GatewayReport("x", NOW)
    silent = GatewayReport("y", NOW - 60, held={KEY: 1})
    assert not read(world, fresh, silent).complete
    assert read(world, fresh, silent).held == 1
    gone = GatewayReport("y", NOW - GIVEN_UP_SECONDS, held={KEY: 1})
    assert read(world, fresh, gone).complete
    assert read(world, fresh, gone).held == 0


def test_an_engine_nobody_has_heard_of_is_missing() -> None:
    assert not read(serving(), GatewayReport("x", NOW), told=False).complete


def test_latencies_are_weighted_by_requests() -> None:
    world = serving()
    a, b = (it.uid for it in world.serving)
    rows = {a: Latency(ttft_p95_ms=100, requests=30), b: Latency(ttft_p95_ms=500, requests=10)}
    found = read(world, GatewayReport("x", NOW, latency=rows))
    assert found.ttft_p95_ms == 200
    assert found.itl_p95_ms is None


def test_evidence_counts_all_requests_and_times_those_that_were_answered() -> None:
    world = serving()
    a, b = (it.uid for it in world.serving)
    rows = {a: Latency(ttft_p95_ms=100, requests=20, errors=10), b: Latency(requests=5, errors=5)}
    signals = Signals((GatewayReport("x", NOW, latency=rows),))
    assert evidence(signals, world.serving, NOW) == Evidence(25, 15, 1000.0, 10)


def test_a_candidate_is_judged_only_after_enough_requests() -> None:
    few, many = Evidence(9, 9), Evidence(10, 10)
    assert worse(few, Evidence(), AbortOn()) == ""
    assert "100.0% of its requests failed" in worse(many, Evidence(), AbortOn())


def test_errors_that_the_current_revision_has_too_are_not_held_against_it() -> None:
    assert worse(Evidence(100, 20), Evidence(100, 18), AbortOn()) == ""
    assert worse(Evidence(100, 20), Evidence(100, 10), AbortOn()) != ""


def test_after_a_gap_nothing_shrinks_before_a_whole_window_was_seen_again() -> None:
    bounds = {"min": 1, "max": 3, "stabilizationSeconds": 100, "targetInflight": 2}
    world = World(spec(scaling=bounds))
    world.load(inflight=1)
    world.tick()
    world.load(held=6)
    world.run(60)
    world.load()
    world.run(70)
    assert world.state.desired == 3
    world.now += 300
    world.run(90)
    assert world.state.desired == 3
    world.run(30)
    assert world.state.desired == 2


def test_the_mean_of_the_load_weighs_samples_by_their_time() -> None:
    history = History(since=NOW)
    for after, load in ((0, 10.0), (10, 4.0), (30, 1.0)):
        history = history.with_load(NOW + after, load, keep_seconds=60)
    assert history.mean_load() == (10 * 4.0 + 20 * 1.0) / 30
