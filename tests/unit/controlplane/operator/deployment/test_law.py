import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.crd.inference import Decision
from controlplane.operator.deployment.law import Inputs, law, recommended, record, replay

small = st.integers(0, 20)
share = st.floats(0, 20, allow_nan=False)


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    maximum = draw(st.integers(1, 20))
    return Inputs(
        before=draw(small),
        fixed=draw(st.none() | small),
        closed=draw(st.sampled_from([0, 0, 0, 1])),
        frozen=draw(st.sampled_from([0, 0, 1])),
        minimum=draw(st.integers(0, maximum)),
        maximum=maximum,
        warm=draw(st.integers(0, 3)),
        load=draw(st.none() | st.floats(0, 500)),
        held=draw(st.sampled_from([0, 0, 3])),
        target_inflight=draw(st.integers(1, 50)),
        kv=draw(st.none() | share),
        ttft_ms=draw(st.none() | st.floats(1, 9000)),
        ttft_target_ms=draw(st.none() | st.floats(1, 9000)),
        loading=draw(st.integers(0, 2)),
        complete=draw(st.sampled_from([0, 1])),
        window_max=draw(st.none() | small),
        idle=draw(st.sampled_from([0, 1])),
        since_step_seconds=draw(st.floats(0, 1000)),
    )


@given(inputs())
def test_every_decision_can_be_replayed_from_what_the_status_keeps(given: Inputs) -> None:
    decision = record(given, law(given), "2026-11-22T10:00:00Z")
    stored = Decision.model_validate(decision.wire())
    assert replay(stored) == law(given).after


@given(inputs())
def test_what_is_wanted_stays_between_minimum_and_maximum(
    given: Inputs,
) -> None:
    after = law(given).after
    if given.fixed is None and not given.closed:
        assert after <= max(given.maximum, 0)
        if not given.frozen:
            assert after >= min(given.minimum, given.maximum)


@given(inputs(), st.floats(0, 100), share)
def test_more_load_never_asks_for_less(given: Inputs, more: float, fuller: float) -> None:
    words = {name: getattr(given, name) for name in given.__dataclass_fields__}
    if given.load is not None:
        words["load"] = given.load + more
    if given.kv is not None:
        words["kv"] = given.kv + fuller
    assert recommended(Inputs(**words)).replicas >= recommended(given).replicas


@given(inputs())
def test_nothing_shrinks_while_something_loads_waits_or_is_missing(given: Inputs) -> None:
    blocked = given.loading or given.held or not given.complete or given.load is None
    spec_says_so = given.fixed is not None or given.closed or given.before > given.maximum
    if blocked and not spec_says_so:
        assert law(given).after >= given.before


@given(inputs())
def test_one_replica_goes_at_a_time_and_one_a_cold_start(given: Inputs) -> None:
    if given.fixed is not None or given.closed or given.before > given.maximum:
        return
    after = law(given).after
    assert after >= given.before - 1
    if 1 < after < given.before:
        assert given.since_step_seconds >= given.cold_start_seconds


@given(inputs())
def test_a_decision_is_stable_once_it_is_taken(given: Inputs) -> None:
    after = law(given).after
    words = {name: getattr(given, name) for name in given.__dataclass_fields__}
    again = Inputs(**{**words, "before": after, "since_step_seconds": 0, "loading": 1})
    if not given.frozen:
        assert law(again).after == after


@pytest.mark.parametrize(
    ("load", "target", "wanted"),
    [(0.0, 8, 0), (0.1, 8, 1), (8.0, 8, 1), (8.1, 8, 2), (24.0, 8, 3)],
)
def test_load_is_divided_by_what_one_replica_carries(load: float, target: int, wanted: int) -> None:
    assert recommended(Inputs(0, maximum=9, load=load, target_inflight=target)).replicas == wanted


def test_a_cache_is_full_when_less_than_the_spare_is_left_below_the_limit() -> None:
    two = {"maximum": 9.0, "load": 1.0, "target_inflight": 9.0}
    assert recommended(Inputs(2, kv=2 * 0.69, **two)).replicas == 2
    assert recommended(Inputs(2, kv=2 * 0.71, **two)).replicas == 3


def test_slow_answers_ask_for_one_more_a_cold_start() -> None:
    slow = {"maximum": 9.0, "load": 1.0, "ttft_ms": 900.0, "ttft_target_ms": 500.0}
    assert law(Inputs(2, since_step_seconds=200, **slow)).after == 3
    assert law(Inputs(2, since_step_seconds=100, **slow)).after == 2
    assert law(Inputs(2, since_step_seconds=200, loading=1, **slow)).after == 2


def test_warm_replicas_come_on_top_of_the_need() -> None:
    assert law(Inputs(0, maximum=9, load=0.0, warm=1)).after == 1
    assert law(Inputs(0, maximum=9, load=3.0, target_inflight=2, warm=1)).after == 3


@settings(max_examples=30)
@given(st.lists(st.floats(0, 40), min_size=5, max_size=40))
def test_a_load_that_goes_up_and_down_within_the_window_costs_no_start(loads: list[float]) -> None:
    """The most of the window is kept, so only new heights start replicas."""
    current, most = 0, 0
    for load in loads:
        needed = math.ceil(load / 4 - 1e-9)
        most = max(most, needed)
        current = law(
            Inputs(
                current,
                maximum=20,
                load=load,
                target_inflight=4,
                window_max=most,
                since_step_seconds=1000,
            )
        ).after
        assert current == most or (most == 1 and current <= 1)


SHRINKS = Inputs(3, maximum=9, load=1.0, window_max=1, since_step_seconds=200)


@pytest.mark.parametrize(
    "blocker",
    [
        {"loading": 1},
        {"held": 1},
        {"complete": 0},
        {"load": None},
        {"window_max": None},
        {"window_max": 3},
        {"since_step_seconds": 100},
        {"frozen": 1},
        {"minimum": 3},
    ],
)
def test_each_doubt_alone_keeps_what_there_is(blocker: dict[str, float | None]) -> None:
    assert law(SHRINKS).after == 2
    assert law(replace(SHRINKS, **blocker)).after == 3


@pytest.mark.parametrize("doubt", [{"idle": 0}, {"loading": 1}, {"held": 1}, {"complete": 0}])
def test_the_last_replica_goes_only_when_it_is_idle_beyond_doubt(doubt: dict[str, float]) -> None:
    alone = Inputs(1, maximum=9, load=0.0, idle=1)
    assert law(alone).after == 0
    assert law(replace(alone, **doubt)).after == 1
