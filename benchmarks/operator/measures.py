"""The measurements, each on the world as the one before left it. Run by `__main__`, in order."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer

from benchmarks.operator.process import OperatorProcess
from benchmarks.operator.results import Figure, quantile
from benchmarks.operator.world import RELEASE, World
from controlplane.cluster import PODS, Object
from controlplane.crd.base import ENDPOINTS, REPLICAS
from controlplane.kube import Kube
from controlplane.watching.cache import Cache, Change, Key
from controlplane.watching.reflector import Reflector

SETTLE_SECONDS = 3600.0
CHANGE_PAUSE_SECONDS = 0.05


def phase_of(body: Object) -> str:
    """A replica's phase."""
    return str(body.get("status", {}).get("phase", "Pending"))


@dataclass
class Watcher:
    """When replicas became what: seen through a watch of its own."""

    cluster: Kube
    drained_at: dict[Key, float] = field(default_factory=dict)
    left_serving_at: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replicas: Cache[Object] = Cache(REPLICAS, lambda body: body)
        self.replicas.subscribe(self._changed)
        self._reflector = Reflector(self.cluster, self.replicas)

    def start(self) -> None:
        """Begin."""
        self._reflector.start()
        assert self.replicas.synced.wait(120)

    def stop(self) -> None:
        """End; the client must be closed first."""
        self._reflector.stop()

    def serving(self) -> set[Key]:
        """Keys of the replicas that serve."""
        return {
            (it["metadata"]["namespace"], it["metadata"]["name"])
            for it in self.replicas.list()
            if phase_of(it) == "Serving"
        }

    def _changed(self, change: Change) -> None:
        now = time.monotonic()
        if change.new is not None and change.new["spec"].get("drain"):
            self.drained_at.setdefault(change.key, now)
        served = change.old is not None and phase_of(change.old) == "Serving"
        if served and (change.new is None or phase_of(change.new) != "Serving"):
            self.left_serving_at.setdefault(change.key, now)


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    world: World
    cluster: Kube
    watcher: Watcher
    kubeconfig: Path
    redis_url: str
    log: Path

    def operator(self) -> OperatorProcess:
        """Start an operator."""
        return OperatorProcess(self.kubeconfig, RELEASE, self.redis_url, self.log)


def settle(bench: Bench, operator: OperatorProcess) -> Iterator[Figure]:
    """From endpoints that nobody has seen to all of them serving; most of it is the API server."""
    began = time.monotonic()
    bench.world.write_endpoints(bench.cluster)
    _until(
        lambda: len(bench.watcher.serving()) >= bench.world.endpoints,
        SETTLE_SECONDS,
        lambda: f"{len(bench.watcher.serving())} serve",
    )
    ended = time.monotonic()
    writes = operator.writes() / bench.world.endpoints
    yield Figure(f"{bench.world.endpoints} endpoints asked for, all serving", ended - began, "s")
    yield Figure("its writes for one endpoint", writes, "")
    operator.rest(SETTLE_SECONDS)


def cold_start(bench: Bench, operator: OperatorProcess) -> Iterator[Figure]:
    """A new process that finds everything as it should be."""
    took = operator.rest(SETTLE_SECONDS) - operator.started_at
    yield Figure(f"cold start with {bench.world.endpoints} replicas, to rest", took, "s", 30.0)
    yield Figure("its processor time", operator.cpu_seconds(), "s")
    yield Figure("its writes", operator.writes(), "", 0)


def steady(bench: Bench, operator: OperatorProcess, seconds: float) -> Iterator[Figure]:
    """Nothing changes."""
    writes, cpu_seconds, began = operator.writes(), operator.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    share = (operator.cpu_seconds() - cpu_seconds) / (time.monotonic() - began)
    yield Figure(f"steady state, {seconds:.0f} s: writes", operator.writes() - writes, "", 0)
    yield Figure("steady state: processor", share * 100, "% of a core", 10.0)
    yield Figure("steady state: memory", operator.memory_bytes() / 2**20, "MiB", 1024.0)


def changes(bench: Bench, operator: OperatorProcess, count: int) -> Iterator[Figure]:
    """From a change of a spec to what follows from it written: a stop, and its replica drained."""
    asked: dict[Key, float] = {}
    for namespace, name in bench.world.every_key()[:count]:
        bench.cluster.patch(ENDPOINTS, name, {"spec": {"state": "Stopped"}}, namespace=namespace)
        asked[namespace, f"{name}-0"] = time.monotonic()
        time.sleep(CHANGE_PAUSE_SECONDS)
    _until(lambda: asked.keys() <= bench.watcher.drained_at.keys(), 300)
    waits = [bench.watcher.drained_at[key] - at for key, at in asked.items()]
    yield Figure(f"{count} changed specs to their effect, p50", quantile(waits, 0.5), "s")
    yield Figure(f"{count} changed specs to their effect, p95", quantile(waits, 0.95), "s", 1.0)


def losses(bench: Bench, operator: OperatorProcess, count: int) -> Iterator[Figure]:
    """Pods that are gone from one moment to the next."""
    lost = sorted(bench.watcher.serving())[-count:]
    bench.watcher.left_serving_at.clear()
    gone: dict[Key, float] = {}
    for namespace, name in lost:
        bench.cluster.delete(PODS, f"{name}-0", namespace=namespace, grace_seconds=0)
        gone[namespace, name] = time.monotonic()
    _until(lambda: gone.keys() <= bench.watcher.left_serving_at.keys(), 600)
    waits = [max(0.0, bench.watcher.left_serving_at[key] - at) for key, at in gone.items()]
    yield Figure(f"{count} pods lost at once, told by status, p95", quantile(waits, 0.95), "s", 2.0)
    yield Figure(f"{count} pods lost at once, the last one told", max(waits), "s")
    began = time.monotonic()
    operator.rest(SETTLE_SECONDS)
    yield Figure("and back at rest after", time.monotonic() - began, "s")


def _until(
    condition: Callable[[], bool], seconds: float, state: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    told_at = time.monotonic()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {state()}"
        if time.monotonic() - told_at > 10 and state():
            typer.echo(f"  {state()}", err=True)
            told_at = time.monotonic()
        time.sleep(0.1)
