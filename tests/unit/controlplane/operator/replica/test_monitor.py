"""Signals are collected, and what changes is told."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.http_engine import Engine, engine_running
from support.polling import until

from controlplane.operator.engines.profile import ENGINES
from controlplane.operator.health.board import Board
from controlplane.operator.replica.asking import Target
from controlplane.operator.replica.monitor import Monitor, pause_seconds
from controlplane.registry import gateways
from controlplane.registry.gateways import GatewayReport
from controlplane.store import open_store

Start = Callable[..., Monitor]


@pytest.fixture
def start(redis_url: str) -> Iterator[Start]:
    """Starts monitors; all are stopped at the end."""
    started: list[Monitor] = []
    stores = []

    def make(targets: list[Target], told: list[tuple[str, str]], url: str = redis_url) -> Monitor:
        store = open_store(url)
        monitor = Monitor(lambda: targets, store, Board(), changed=told.append)
        monitor.start()
        started.append(monitor)
        stores.append(store)
        return monitor

    yield make
    for monitor in started:
        monitor.stop()
    assert all(monitor.join(5) for monitor in started)
    for store in stores:
        store.close()


def target(url: str, **changes: object) -> Target:
    made = Target("u", ("t", "r"), url, "flash@shop", ENGINES["flash"], 5.0, 0.05)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_engines_are_asked_and_changes_told_once(start: Start) -> None:
    told: list[tuple[str, str]] = []
    engine = Engine()
    with engine_running(engine) as url:
        monitor = start([target(url)], told)
        until(lambda: engine.asked.count("/health") > 5, seconds=5, what="answers")
        state = monitor.signals().engines["u"]
        assert state.proven
        assert told == [("t", "r")]
        engine.running = 1
        until(lambda: len(told) == 2, seconds=5, what="that it is busy to be told")


def test_another_process_must_prove_itself(start: Start) -> None:
    engine = Engine()
    with engine_running(engine) as url:
        targets = [target(url)]
        monitor = start(targets, [])
        until(lambda: monitor.engine("u"), seconds=5, what="a proof")
        engine.completions = 500
        targets[0] = target(url, started_at=9.0)

        def is_unproven() -> bool:
            state = monitor.engine("u")
            return state is not None and state.started_at == 9.0 and not state.proven

        until(is_unproven, seconds=5, what="the new process to be judged")


def test_a_replica_that_is_gone_is_forgotten(start: Start) -> None:
    with engine_running(Engine()) as url:
        targets = [target(url)]
        monitor = start(targets, [])
        until(lambda: monitor.engine("u"), seconds=5, what="an answer")
        targets.clear()
        until(lambda: monitor.engine("u") is None, seconds=5, what="it to be forgotten")


def test_old_reports_are_kept_and_a_store_that_is_down_is_none(
    start: Start, redis_url: str
) -> None:
    store = open_store(redis_url)
    report = GatewayReport("g1", published_at=time.time() - 60)
    gateways.TABLE.publish(store, "g1", report)
    store.close()
    monitor = start([], [])
    until(lambda: monitor.signals().gateways == (report,), seconds=5, what="the report")
    down = start([], [], "unix:///nowhere.sock")
    assert down.signals().gateways is None


@pytest.mark.parametrize(
    ("every_seconds", "engines", "pause"), [(2.0, 10, 2.0), (2.0, 5_000, 12.5), (0.5, 5_000, 0.5)]
)
def test_thousands_of_engines_at_rest_are_asked_less_often(
    every_seconds: float, engines: int, pause: float
) -> None:
    assert pause_seconds(every_seconds, engines) == pause
