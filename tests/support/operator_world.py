"""The whole operator without its threads, over a cluster in memory that fails as the test says.

The parts are those that `operator.assembly` makes. Time passes only by `advance`, caches learn only
by `catch_up`, and rounds run only by `work`, so that every order of events can be written down and
repeated. What engines and gateways say is played here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from support.operator_laws import Laws
from support.scripted_kubelet import Kubelets, Process, node_body

from controlplane.cluster import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    AlreadyExists,
    ClusterError,
    Conflict,
    NamespaceTerminating,
    NotFound,
    Object,
    Resource,
    Unreachable,
    WatchEvent,
)
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS, TENANT_LABEL
from controlplane.crd.configuration import CATALOGUE_NAME
from controlplane.crd.replica import Replica
from controlplane.local.objects import Call, LocalCluster, Moment
from controlplane.operator.assembly import Assembly, Clocks
from controlplane.operator.replica.publisher import is_over, routed
from controlplane.operator.signals import EngineState, Signals
from controlplane.planner.catalogue import KEY
from controlplane.registry import replicas as registry
from controlplane.registry.gateways import GatewayReport
from controlplane.settings import Settings
from controlplane.store import open_store

BEGIN = 1_790_000_000.0
RELEASE, TENANT = "flashplane", "fp-acme"
WRITES = ("create", "apply", "apply_status", "patch", "delete")
_TINY = {
    "gpu": "CPU",
    "architecture": "cpu",
    "memory_gib": 8,
    "cpu": "1",
    "memory": "1Gi",
    "resource": "flashplane.io/tiny",
}
_H200 = {"gpu": "H200", "architecture": "hopper", "memory_gib": 140.4}
CATALOGUE = [
    {"id": "tiny", **_TINY},
    {"id": "tiny-spot", "spot": True, **_TINY},
    {"id": "h200-x4", "count": 4, **_H200},
    {"id": "h200-x3", "count": 3, **_H200},
    {"id": "tight", "count": 2, **_H200, "memory_gib": 86},
]
NODES_AT_FIRST = (node_body("n1", 3), node_body("n2", 2), node_body("n3", 2, spot=True))


class Killed(BaseException):
    """The operator's process ended here."""


@dataclass
class Gateway:
    """What one gateway knows of replicas, and the streams it has on them, by replica uid."""

    sees: dict[str, registry.Replica] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    report: GatewayReport | None = None


class Operator:
    """One life of the operator's process."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.leading = True
        self.engines: dict[str, EngineState] = {}
        clocks = Clocks(wall=lambda: world.now, steady=lambda: world.now)
        settings = Settings(operator_namespace=RELEASE, operator_workers=1, tools_image="tools")
        store = open_store("redis://127.0.0.1:1")  # nothing is ever asked of it
        self.parts = Assembly(world.cluster, settings, store, lambda: self.leading, clocks)
        self.parts.replicas.signals = self.signals
        self.parts.deployments.signals = self.signals
        self.ends_told: set[str] = set()
        self.parts.replicas.end_told = self.ends_told.__contains__
        self.watched_at = 0.0  # when all changes of pods were known

    def signals(self) -> Signals:
        reports = [it.report for it in self.world.gateways.values() if it.report is not None]
        gateways = tuple(reports) if self.world.store_up else None
        told = self.parts.monitor.signals()  # of nodes; it asks no engine, since it never starts
        return replace(told, gateways=gateways, engines=dict(self.engines))

    def catch_up(self, resources: Iterable[Resource] | None = None) -> None:
        """Let caches learn what the API server tells, as far as the watches hold."""
        wanted = None if resources is None else set(resources)
        for reflector in self.parts.reflectors:
            if wanted is not None and reflector.cache.resource not in wanted:
                continue
            try:
                with self.world.acting(self):
                    reflector.round(0.0)
            except ClusterError:
                continue
            if reflector.cache.resource == PODS:
                self.watched_at = self.world.now

    def work(self, most: int = 200) -> int:
        """Do rounds until nothing waits, or so many; return how many were done."""
        if not all(it.cache.synced.is_set() for it in self.parts.reflectors):
            return 0
        done = 0
        with self.world.acting(self):
            while done < most and any(it.step() for it in self.parts.controllers):
                done += 1
        return done

    def ask_engines(self) -> None:
        """Ask what the monitor would ask, of the processes that truly run."""
        for target in self.parts.replicas.targets():
            before = self.engines.get(target.uid)
            self.engines[target.uid] = said = self.world.engine_says(target.url, target.uid)
            if said.started_at is not None and said.started_at != target.started_at:
                self.engines[target.uid] = said = replace(said, proven=False)
            if before is None or _news(before) != _news(said):
                self.parts.replicas.queue.add(target.key)

    def tell_ends(self) -> None:
        """Tell jobs whose lives are over, as the publisher does every second."""
        if self.world.store_up:
            known = self.parts.replicas.routed()
            self.ends_told.update(it.uid for it in known if is_over(it.status))


class World:
    """A cluster of three nodes, a tenant, two gateways and an operator.

    Attributes:
        faults: what befalls the operator's next writes, one each.
        cut_watches_after: events that are still told before every watch breaks; None: no end.
        kill_after: writes until the operator's process ends; None: it lives.
        refuse: called with everything an operator asks, to raise what the API server answers.
        asked: how many calls operators made.
        writes: all that was written by operators.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.store_up = True
        self.writes: list[str] = []
        self.faults: list[str] = []
        self.cut_watches_after: int | None = None
        self.kill_after: int | None = None
        self.refuse: Callable[[Call], None] = lambda call: None
        self.asked = 0
        self.deaths = 0
        self.actor: Operator | None = None
        self.cluster = LocalCluster(now=lambda: self.now, faults=self._meddle)
        self.gateways = {"g1": Gateway(), "g2": Gateway()}
        self.kubelets = Kubelets(self.cluster, lambda: self.now, self._process_ended)
        self.laws = Laws(self)
        text = yaml.safe_dump({"configurations": CATALOGUE})
        self._make(NAMESPACES, {"metadata": {"name": RELEASE}})
        self.make_tenant()
        metadata = {"namespace": RELEASE, "name": CATALOGUE_NAME}
        self._make(CONFIG_MAPS, {"metadata": metadata, "data": {KEY: text}})
        for node in NODES_AT_FIRST:
            self._make(NODES, node)
        self.operator = Operator(self)

    # What users do.

    def make_tenant(self) -> None:
        body = {"metadata": {"name": TENANT, "labels": {TENANT_LABEL: "acme"}}}
        self._make(NAMESPACES, body)

    def make_pool(self, name: str = "pool", **spec: Any) -> None:
        scaling = {"min": 0, "max": 3, "stabilizationSeconds": 30, "idleSeconds": 30}
        self._deploy(RELEASE, name, {"path": "serverless", "scaling": scaling, **spec})

    def make_dedicated(self, name: str = "chat", **spec: Any) -> None:
        base = {"path": "dedicated", "tenant": "acme", "replicas": 1}
        self._deploy(TENANT, name, {**base, **spec})

    def make_endpoint(self, name: str = "dev", **spec: Any) -> None:
        base = {"tenant": "acme", "configurations": ["tiny"], **spec}
        self._make(ENDPOINTS, {"metadata": {"namespace": TENANT, "name": name}, "spec": base})

    def break_catalogue(self, text: str) -> None:
        change = {"data": {KEY: text}}
        self.cluster.patch(CONFIG_MAPS, CATALOGUE_NAME, change, namespace=RELEASE)

    def change(self, resource: Resource, namespace: str, name: str, **spec: Any) -> None:
        self._quietly(
            lambda: self.cluster.patch(resource, name, {"spec": spec}, namespace=namespace)
        )

    def delete(self, resource: Resource, name: str, namespace: str = "") -> None:
        self._quietly(lambda: self.cluster.delete(resource, name, namespace=namespace))

    def _deploy(self, namespace: str, name: str, spec: Object) -> None:
        base = {
            "configurations": ["tiny"],
            "weights": {"pvc": {"claim": "tiny"}},
            "engine": {"maxModelLen": 4096},
            "drain": {"timeoutSeconds": 20},
            "rollout": {"canarySteps": [{"weight": 50, "seconds": 5}]},
        }
        metadata = {"namespace": namespace, "name": name}
        self._make(DEPLOYMENTS, {"metadata": metadata, "spec": {**base, **spec}})

    def _make(self, resource: Resource, body: Object) -> None:
        self._quietly(lambda: self.cluster.create(resource, body))

    def _quietly(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (AlreadyExists, NotFound, NamespaceTerminating):
            return  # it is there already, or gone

    # What happens.

    def advance(self, seconds: float) -> None:
        """Let time pass: gateways and engines speak as they do all the time."""
        self.now += seconds
        self.operator.ask_engines()
        self.operator.tell_ends()
        self.gateways_look()
        self.laws.bill()

    def tick(self, seconds: float = 1.0) -> None:
        """Let everybody do their part once, in order."""
        self.kubelets.step()
        self.advance(seconds)
        self.run_operator()

    def run_operator(self) -> None:
        """Let the operator learn and work; one that is killed is started again."""
        try:
            self.operator.catch_up()
            self.operator.work()
        except Killed:
            self.restart()

    def restart(self) -> None:
        """Start a new operator, which knows nothing."""
        self.deaths += 1
        self.kill_after = None
        self.operator.leading = False
        self.operator = Operator(self)

    def settle(self, *, until: Callable[[], bool], ticks: int = 120, seconds: float = 3.0) -> None:
        """Tick until something holds."""
        for _ in range(ticks):
            if until():
                return
            self.tick(seconds)
            self.laws.check()
        assert until(), f"it never came to be: {self.picture()}"

    def rest(self, ticks: int = 8, seconds: float = 20.0) -> None:
        """Let what is on its way arrive, and then find nothing written any more."""
        quiet = 0
        for _ in range(200):
            before = len(self.writes)
            self.tick(seconds)
            self.laws.check()
            quiet = quiet + 1 if len(self.writes) == before else 0
            if quiet == ticks:
                return
        raise AssertionError(f"it goes on writing: {self.writes[-12:]}")

    def gateways_look(self) -> None:
        """Gateways read what the operator publishes and report, as each does twice a second."""
        told = {
            it.uid: entry
            for it in self.operator.parts.replicas.routed()
            if (entry := routed(it, self.now)) is not None
        }
        for name, gateway in self.gateways.items():
            if self.store_up:
                gateway.sees = told
                gateway.report = self._report(name, gateway)

    def open_stream(self, name: str, index: int) -> None:
        """A request goes to a replica that a gateway knows, if its engine takes it."""
        gateway = self.gateways[name]
        open_to = sorted(uid for uid, it in gateway.sees.items() if not it.draining)
        if not open_to:
            return
        uid = open_to[index % len(open_to)]
        process = self._process_at(gateway.sees[uid].url)
        if process is not None and process.ready:
            gateway.streams[uid] = gateway.streams.get(uid, 0) + 1

    def close_streams(self, name: str) -> None:
        self.gateways[name].streams.clear()

    def engine_says(self, url: str, uid: str) -> EngineState:
        process = self._process_at(url)
        if process is None:
            return EngineState(self.now, healthy=False, error="no answer")
        running = sum(it.streams.get(uid, 0) for it in self.gateways.values())
        return EngineState(
            self.now,
            healthy=True,
            proven=process.ready,
            running=running,
            waiting=0,
            max_model_len=4096,
            started_at=process.started_at,
        )

    def repeat_events(self, resource: Resource, bodies: list[Object]) -> None:
        """Tell the operator again what a watch has told it; no watch tells its own writes early."""
        cache = self.operator.parts.caches[resource]
        for body in bodies:
            if int(body["metadata"]["resourceVersion"]) <= cache.told_version:
                cache.apply(WatchEvent("MODIFIED", body))

    def picture(self) -> Object:
        """What there is, without what differs from one run to another."""
        seen: Object = {}
        for resource in (DEPLOYMENTS, ENDPOINTS, REPLICAS, PODS):
            for body in self.cluster.list(resource).items:
                status, spec = body.get("status", {}), body["spec"]
                key = f"{resource.kind} {body['metadata']['namespace']}/{body['metadata']['name']}"
                said = {it["type"]: it["status"] for it in status.get("conditions", ())}
                seen[key] = {
                    "phase": status.get("phase"),
                    "conditions": said,
                    "deleting": "deletionTimestamp" in body["metadata"],
                    "revision": spec.get("revision"),
                    "weight": spec.get("weight"),
                }
        return seen

    def condition(self, resource: Resource, namespace: str, name: str, type: str) -> Object:
        """A condition of an object, as its status says it now; empty: it has none of this type."""
        body = self.cluster.get(resource, name, namespace=namespace)
        said = body.get("status", {}).get("conditions", ())
        return next((it for it in said if it["type"] == type), {})

    def replicas(self) -> list[Replica]:
        return [Replica.of(body) for body in self.cluster.list(REPLICAS).items]

    def _report(self, name: str, gateway: Gateway) -> GatewayReport:
        draining = {
            uid: gateway.streams.get(uid, 0) for uid, it in gateway.sees.items() if it.draining
        }
        inflight = {uid: count for uid, count in gateway.streams.items() if count}
        held = {f"{RELEASE}/pool": 1} if self.laws.holding else {}
        return GatewayReport(name, self.now, inflight=inflight, draining=draining, held=held)

    def _process_at(self, url: str) -> Process | None:
        found = [it for it in self.kubelets.running() if url == f"http://{it.address}:8000"]
        return found[0] if found else None

    def _process_ended(self, process: Process, asked: bool) -> None:
        uids = [it.uid for it in self.replicas() if it.key == process.replica]
        for gateway in self.gateways.values():
            for uid in uids:
                cut = gateway.streams.pop(uid, 0)
                if asked and cut:
                    self.laws.streams_were_cut(process.replica)

    # What goes wrong between the operator and the API server.

    def acting(self, operator: Operator) -> "_Acting":
        return _Acting(self, operator)

    def _meddle(self, call: Call, moment: Moment) -> None:
        if self.actor is None:
            return
        actor, self.actor = self.actor, None  # looking at the truth is nobody's doing
        try:
            self._meddle_with(actor, call, moment)
        finally:
            self.actor = actor

    def _meddle_with(self, actor: Operator, call: Call, moment: Moment) -> None:
        if moment == "before":
            self.asked += 1
            self.refuse(call)
        if call.verb == "watch":
            self._cut(moment)
        if call.verb not in WRITES:
            return
        if moment == "before":
            assert actor.leading, "an operator without the lead wrote"
            self._fail(call, ("conflict", "throttled", "broken"))
            self.laws.before(actor, call)
            return
        self.writes.append(f"{call.verb} {call.resource.kind} {call.namespace}/{call.name}")
        self.laws.after(actor, call)
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after <= 0:
                raise Killed
        self._fail(call, ("timeout",))

    def _fail(self, call: Call, among: tuple[str, ...]) -> None:
        if not self.faults or self.faults[0] not in among:
            return
        fault = self.faults.pop(0)
        if fault == "conflict":
            raise AlreadyExists("told so") if call.verb == "create" else Conflict("told so")
        raise Unreachable(fault, retry_after_seconds=2.0 if fault == "throttled" else None)

    def _cut(self, moment: Moment) -> None:
        if self.cut_watches_after is None:
            return
        if moment == "after":
            self.cut_watches_after -= 1
        if self.cut_watches_after < 0:
            raise Unreachable("the watch broke")


class _Acting:
    """While it lasts, it is an operator that speaks to the cluster."""

    def __init__(self, world: World, operator: Operator) -> None:
        self._world, self._operator = world, operator

    def __enter__(self) -> None:
        self._world.actor = self._operator

    def __exit__(self, *_: object) -> None:
        self._world.actor = None


def _news(state: EngineState) -> tuple[object, ...]:
    return state.healthy, state.proven, state.started_at, state.running == 0
