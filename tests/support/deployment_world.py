"""A world in which a deployment's plans are carried out at once: replicas live as the test says.

Plays the part of executor, API server and replica controller for the pure plan of deployments.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.cluster import Object
from controlplane.crd.base import FINALIZER, timestamp
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.inference import InferenceDeployment, InferenceDeploymentStatus
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.actions import (
    Action,
    Apply,
    ApplyStatus,
    Create,
    Delete,
    Emit,
    Patch,
    Plan,
)
from controlplane.operator.deployment.history import History
from controlplane.operator.deployment.observed import Observed, Verdict
from controlplane.operator.deployment.plan import plan
from controlplane.operator.deployment.scaling import remember
from controlplane.operator.signals import EngineState, Signals
from controlplane.operator.tenants.namespace import Namespace
from controlplane.registry.gateways import GatewayReport, Latency

BEGIN = 1_790_000_000.0
KEY = "fp/chat"


def configuration(name: str = "h200-x4", *, count: int = 4, **more: Any) -> GPUConfiguration:
    return GPUConfiguration(id=name, gpu="H200", memory_gib=140, count=count, **more)


def spec(**parts: Any) -> Object:
    """Return a pool's spec with a fixed number of replicas; `scaling` in `parts` replaces it."""
    base: Object = {
        "path": "serverless",
        "model": "flash",
        "configurations": ["h200-x4"],
        "weights": {"pvc": {"claim": "weights"}},
    }
    if "scaling" not in parts:
        base["replicas"] = 1
    return {**base, **parts}


def dedicated(**parts: Any) -> Object:
    return spec(path="dedicated", tenant="acme", **parts)


@dataclass
class World:
    """One deployment and all that its plans see; times pass only by `tick`."""

    spec: Object
    catalogue: Mapping[str, GPUConfiguration] = field(
        default_factory=lambda: {"h200-x4": configuration()}
    )
    verdicts: Mapping[str, Verdict] | None = None
    now: float = BEGIN
    start_seconds: float = 20.0
    tenant: str = ""

    def __post_init__(self) -> None:
        self.generation = 1
        self.finalizers: list[str] = []
        self.deleting = False
        self.terminating = False
        self.suspended = ""
        self.status: Object = {}
        self.bodies: dict[str, Object] = {}
        self.born: dict[str, float] = {}
        self.history = History(since=self.now)
        self.gateways: tuple[GatewayReport, ...] | None = (self.report(),)
        self.silent = False  # gateways repeat nothing
        self.engines: dict[str, EngineState] = {}
        self.kv: float | None = None
        self.notices: dict[str, float] = {}
        self.stock: dict[str, int] = {}  # by configuration; absent: plenty, and not told
        self.faulty: set[str] = set()  # revisions whose replicas never serve
        self.stuck = False  # replicas stay in the phase they are in
        self.plans: list[Plan] = []
        self.log: list[Action] = []
        self.writes_left: int | None = None  # before the operator is killed; None: it is not
        self.unseen: set[str] = set()  # replicas that the operator's cache does not show yet
        self._uids = itertools.count()
        if "tenant" in self.spec and not self.tenant:
            self.tenant = self.spec["tenant"]

    # What the world is.

    def report(self, **parts: Any) -> GatewayReport:
        return GatewayReport(gateway="g", published_at=self.now, **parts)

    def load(self, held: int = 0, inflight: int = 0, latency: Latency | None = None) -> None:
        """Let the gateway report so many requests, those in flight on all serving replicas."""
        uids = [it.uid for it in self.replicas if it.status.phase is Phase.SERVING]
        share = dict.fromkeys(uids, 0)
        for index in range(inflight if uids else 0):
            share[uids[index % len(uids)]] += 1
        self.gateways = (
            self.report(
                held={KEY: held} if held else {},
                inflight=share,
                latency=dict.fromkeys(uids, latency) if latency else {},
            ),
        )

    @property
    def deployment(self) -> InferenceDeployment:
        metadata: Object = {
            "name": "chat",
            "namespace": "fp",
            "uid": "deployment",
            "generation": self.generation,
            "finalizers": list(self.finalizers),
        }
        if self.deleting:
            metadata["deletionTimestamp"] = timestamp(self.now)
        return InferenceDeployment.of(
            {"metadata": metadata, "spec": self.spec, "status": self.status}
        )

    @property
    def replicas(self) -> tuple[Replica, ...]:
        found = [Replica.of(body) for body in self.bodies.values()]
        return tuple(sorted(found, key=lambda it: it.spec.slot))

    @property
    def serving(self) -> list[Replica]:
        return [it for it in self.live if it.status.phase is Phase.SERVING]

    @property
    def live(self) -> list[Replica]:
        ended = (Phase.RELEASED, Phase.FAILED)
        return [it for it in self.replicas if not it.spec.drain and it.status.phase not in ended]

    @property
    def state(self) -> InferenceDeploymentStatus:
        return self.deployment.status

    def condition(self, type: str) -> tuple[str, str]:
        found = next(it for it in self.state.conditions if it.type == type)
        return found.status, found.reason

    def observed(self) -> Observed:
        verdicts = self.verdicts or {
            name: Verdict(inflight=4) for name in self.spec["configurations"]
        }
        engines = {
            it.uid: EngineState(self.now, True, True, kv_usage=self.kv)
            for it in self.replicas
            if it.status.phase is Phase.SERVING
        }
        gateways = self.gateways
        if gateways is not None and not self.silent:
            # A gateway repeats itself each half second.
            gateways = tuple(_at(report, self.now) for report in gateways)
        return Observed(
            self.deployment,
            self.history,
            replicas=tuple(it for it in self.replicas if it.name not in self.unseen),
            catalogue=self.catalogue,
            verdicts=verdicts,
            stock=self.stock,
            namespace=Namespace(self.tenant, self.terminating, live={}, suspended=self.suspended),
            signals=Signals(gateways, {**engines, **self.engines}, self.notices),
            start_seconds=self.start_seconds,
        )

    # What happens.

    def change(self, **parts: Any) -> None:
        """Change the spec."""
        self.spec = {**self.spec, **parts}
        self.generation += 1

    def restart(self) -> None:
        """Begin with a new operator, which remembers nothing."""
        self.history = History(since=self.now)

    def reconcile(self) -> Plan:
        """Plan once and carry it out."""
        observed = remember(self.observed(), self.now)
        self.history = observed.history
        made = plan(observed, self.now)
        self.plans.append(made)
        for action in made.actions:
            if self.writes_left is not None:
                if self.writes_left == 0:
                    self.writes_left = None
                    self.restart()
                    break
                self.writes_left -= 1
            if isinstance(action, Create) and action.body["metadata"]["name"] in self.unseen:
                break  # the API server says that it exists, and the round ends
            self.carry_out(action)
        self.unseen.clear()
        return made

    def tick(self, seconds: float = 1.0) -> Plan:
        """Let time pass, replicas go on in their lives, and the operator look once."""
        self.now += seconds
        for name in list(self.bodies):
            self._live_on(name)
        return self.reconcile()

    def run(self, seconds: float, *, step: float = 1.0) -> None:
        """Tick until so many seconds have passed."""
        for _ in range(int(seconds / step)):
            self.tick(step)

    def carry_out(self, action: Action) -> None:
        self.log.append(action)
        match action:
            case Create(body=body):
                name = body["metadata"]["name"]
                assert name not in self.bodies, "a slot is taken twice"
                metadata = {**body["metadata"], "uid": f"uid-{next(self._uids)}", "generation": 1}
                metadata["creationTimestamp"] = timestamp(self.now)
                self.bodies[name] = {**body, "metadata": metadata, "status": {}}
                self.born[name] = self.now
            case ApplyStatus(body=body):
                self.status = body["status"]
            case Patch(name="chat", change=change):
                self.finalizers = change["metadata"]["finalizers"]
            case Patch(name=name, change=change):
                body = self.bodies[name]
                self.bodies[name] = {**body, "spec": {**body["spec"], **change["spec"]}}
            case Delete(name=name):
                self.bodies.pop(name, None)
            case Emit() | Apply():
                pass

    def set_phase(self, name: str, phase: Phase, **status: Any) -> None:
        body = self.bodies[name]
        self.bodies[name] = {**body, "status": {**body["status"], "phase": phase, **status}}

    def fail(self, name: str, reason: str, *, retryable: bool = True) -> None:
        failure = {"reason": reason, "retryable": retryable, "at": timestamp(self.now)}
        self.set_phase(name, Phase.FAILED, failure=failure, placements=[])

    def _live_on(self, name: str) -> None:
        """The replica controller in short: reserve, load, serve; drain, release."""
        replica = Replica.of(self.bodies[name])
        phase = replica.status.phase
        if replica.spec.drain and phase is Phase.DRAINING:
            kind = replica.spec.configuration.id
            if kind in self.stock and replica.status.placements:
                self.stock[kind] += 1
            self.set_phase(name, Phase.RELEASED, placements=[])
        elif replica.spec.drain and phase not in (Phase.RELEASED, Phase.FAILED):
            self.set_phase(name, Phase.DRAINING)
        elif self.stuck or (replica.spec.revision in self.faulty and phase is Phase.LOADING):
            pass
        elif phase is Phase.PENDING:
            kind = replica.spec.configuration.id
            if self.stock.get(kind, 1) > 0:
                if kind in self.stock:
                    self.stock[kind] -= 1
                gpus = replica.spec.configuration.count
                placements = [{"node": f"node-{name}", "gpus": gpus}]
                self.set_phase(name, Phase.LOADING, placements=placements)
        elif phase is Phase.LOADING and self.now - self.born[name] >= self.start_seconds:
            self.set_phase(name, Phase.SERVING, servingSince=timestamp(self.now))
        self._answer(name)

    def _answer(self, name: str) -> None:
        body = self.bodies[name]
        status = {**body["status"], "observedGeneration": body["metadata"]["generation"]}
        self.bodies[name] = {**body, "status": status}


def _at(report: GatewayReport, now: float) -> GatewayReport:
    return GatewayReport(
        gateway=report.gateway,
        published_at=now,
        inflight=report.inflight,
        draining=report.draining,
        held=report.held,
        latency=report.latency,
    )


def finalized(world: World) -> bool:
    return FINALIZER not in world.finalizers
