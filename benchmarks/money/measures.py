"""What is measured: holds that settle, staging, settlement, and how long a hold waits meanwhile."""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue

from sqlalchemy import func, select

from benchmarks.money import bare
from benchmarks.money.results import Figure, quantile
from benchmarks.money.world import World
from controlplane.accounts import holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.billing import settlement
from controlplane.gateway.holding import MAX_BATCH
from controlplane.usage import sink
from controlplane.usage.models import UsageEvent
from controlplane.usage.traces import Trace

STAGED_ROWS = 1_000
_PROCESSES = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Pairs:
    """What one run of holds and settlements took."""

    pairs_per_second: float
    hold_p99_seconds: float


def pairs(world: World, *, count: int, batch: int = MAX_BATCH) -> Pairs:
    """Hold and stage `count` requests from here while another process settles them.

    Ends when all are settled, so nothing is left out of the time.
    """
    ready, go = _PROCESSES.Event(), _PROCESSES.Event()
    ended: Queue[float] = _PROCESSES.Queue()
    settler = _PROCESSES.Process(target=_settle_all, args=(world, count, ready, go, ended))
    settler.start()
    sessions = world.sessions()
    with sessions.begin() as session:
        session.execute(select(1))
    ready.wait()
    go.set()
    started = time.monotonic()
    waits = []
    for start in range(0, count, batch):
        asked = time.perf_counter()
        traces = _place(sessions, world, start, batch)
        waits.append(time.perf_counter() - asked)
        with sessions.begin() as session:
            sink.stage(session, traces)
    settler.join()
    assert settler.exitcode == 0, "the settling process failed"
    seconds = ended.get() - started
    sessions.kw["bind"].dispose()
    return Pairs(count / seconds, quantile(waits, 0.99))


def rows(world: World, *, count: int) -> Iterator[Figure]:
    """Time staging alone, then settlement alone, of requests with open holds."""
    sessions = world.sessions()
    traces = []
    for start in range(0, count, MAX_BATCH):
        traces += _place(sessions, world, start, MAX_BATCH)
    started = time.perf_counter()
    for start in range(0, count, STAGED_ROWS):
        with sessions.begin() as session:
            sink.stage(session, traces[start : start + STAGED_ROWS])
    staged = count / (time.perf_counter() - started)
    floor = bare.copied_rows_per_second(world.url, count=count, batch=STAGED_ROWS)
    case = f"staged in batches of {STAGED_ROWS:,}"
    yield Figure(case, staged, "rows/s", aim=30_000, floor=floor)
    started = time.perf_counter()
    settled = 0
    while settled < count:
        with sessions.begin() as session:
            settled += settlement.settle(session)
    yield Figure("settled, nothing else", count / (time.perf_counter() - started), "rows/s")
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(UsageEvent)) == count
    sessions.kw["bind"].dispose()


def _place(sessions, world: World, start: int, count: int) -> list[Trace]:  # type: ignore[no-untyped-def]
    requests = [world.request(start + number) for number in range(count)]
    with sessions.begin() as session:
        outcomes = holds.place(session, requests)
    traces = []
    for request, outcome in zip(requests, outcomes, strict=True):
        assert isinstance(outcome, HoldPlan), outcome
        traces.append(world.ended(request, outcome))
    return traces


def _settle_all(world: World, count: int, ready, go, ended) -> None:  # type: ignore[no-untyped-def]
    sessions = world.sessions()
    with sessions.begin() as session:
        session.execute(select(1))
    ready.set()
    go.wait()
    settled = 0
    while settled < count:
        with sessions.begin() as session:
            found = settlement.settle(session)
        settled += found
        if not found:
            time.sleep(0.002)
    ended.put(time.monotonic())
