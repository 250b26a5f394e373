"""One replica's world in memory: nodes, pods, gateways, an engine, and plans carried out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.cluster import PODS, Object
from controlplane.crd.base import FINALIZER, REPLICA_LABEL, timestamp
from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.engine import ClaimSource, EngineSpec, WeightsSpec
from controlplane.crd.replica import Phase, Placement, Replica, ReplicaSpec, ReplicaStatus
from controlplane.operator.actions import Apply, ApplyStatus, Create, Delete, Emit, Patch, Plan
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.plan import plan
from controlplane.operator.replica.pods import started_at
from controlplane.operator.replica.workload import Manifest, Progress
from controlplane.operator.signals import EngineState, GPUError, Signals
from controlplane.registry.gateways import GatewayReport

START = 1_800_000_000.0
CONFIGURATION = GPUConfiguration(id="h200-x4", gpu="H200", count=4, memory_gib=140.0)


def replica_spec(**changes: Any) -> ReplicaSpec:
    """Return a dedicated replica's spec."""
    fields: dict[str, Any] = {
        "owner_kind": "InferenceDeployment",
        "owner": "shop",
        "path": "dedicated",
        "tenant": "acme",
        "model": "flash@shop",
        "revision": "r1",
        "configuration": CONFIGURATION,
        "engine": EngineSpec(),
        "weights": WeightsSpec(pvc=ClaimSource(claim="weights")),
    }
    return ReplicaSpec(**fields | changes)


def node_body(name: str, *, gpus: int = 8, ready: bool = True, **metadata: Any) -> Object:
    """Return a Node with GPUs."""
    return {
        "metadata": {"name": name, "resourceVersion": "1", **metadata},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "96", "memory": "1Ti"},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "lastTransitionTime": timestamp(START - 3600),
                }
            ],
        },
    }


@dataclass
class ScriptedWorkload:
    """A `Workload` whose pods are as far as a test says, in `status.stage`."""

    probed: bool = True
    needs_scrub: bool = False

    def manifests(self, replica: Replica) -> list[Manifest]:
        count = len(replica.status.placements)
        return [(PODS, _pod(replica, f"{replica.name}-{rank}")) for rank in range(count)]

    def stage(self, replica: Replica, pods: Sequence[Object]) -> Progress:
        progress: list[Progress] = [pod["status"]["stage"] for pod in pods]
        broken = [it for it in progress if it.reason is not None]
        order = list(Phase)
        return broken[0] if broken else min(progress, key=lambda it: order.index(it.phase))

    def scrub_manifests(self, replica: Replica) -> list[Manifest]:
        return [(PODS, _pod(replica, f"{replica.name}-scrub"))]

    def scrub_proof(
        self, replica: Replica, pods: Sequence[Object], now: float
    ) -> ScrubProof | None:
        proofs: list[ScrubProof] = [it["status"]["proof"] for it in pods if "proof" in it["status"]]
        return proofs[0] if proofs else None


def _pod(replica: Replica, name: str) -> Object:
    metadata = {
        "name": name,
        "namespace": replica.namespace,
        "labels": {REPLICA_LABEL: replica.name},
    }
    return {"metadata": metadata, "spec": {}, "status": {"stage": Progress(Phase.RESERVED)}}


@dataclass
class World:
    """Everything a replica sees. Time stands still unless a test moves it."""

    spec: ReplicaSpec = field(default_factory=replica_spec)
    workload: ScriptedWorkload = field(default_factory=ScriptedWorkload)
    now: float = START
    offers: tuple[Placement, ...] = (Placement(node="n1", gpus=4),)
    nodes: dict[str, Object] = field(default_factory=lambda: {"n1": node_body("n1")})
    pods: dict[str, Object] = field(default_factory=dict)
    gateways: dict[str, GatewayReport] | None = field(default_factory=dict)
    engine: EngineState | None = None
    notices: dict[str, float] = field(default_factory=dict)
    gpu_errors: dict[str, tuple[GPUError, ...]] = field(default_factory=dict)
    owner_exists: bool = True
    terminating: bool = False
    refused: str = ""
    end_told: bool = True
    body: Object | None = None
    done: list[Any] = field(default_factory=list)
    events: list[Emit] = field(default_factory=list)
    created: int = 0

    def __post_init__(self) -> None:
        metadata = {
            "uid": "u-1",
            "generation": 1,
            "resourceVersion": "1",
            "finalizers": [FINALIZER],
            "creationTimestamp": timestamp(self.now),
        }
        self.body = Replica.body(
            "tenant-a", "shop-0", metadata=metadata, spec=self.spec.wire(), status={}
        )

    # What is seen.

    @property
    def replica(self) -> Replica:
        assert self.body is not None
        return Replica.of(self.body)

    @property
    def status(self) -> ReplicaStatus:
        return self.replica.status

    @property
    def phase(self) -> Phase:
        return self.status.phase

    def condition(self, type: str) -> tuple[str, str]:
        """Return a condition's status and reason; empty words when it is not there."""
        found = [it for it in self.status.conditions if it.type == type]
        return (found[0].status, found[0].reason) if found else ("", "")

    def observed(self) -> Observed:
        gateways = None if self.gateways is None else tuple(self.gateways.values())
        return Observed(
            replica=self.replica,
            workload=self.workload,
            all_pods=tuple(self.pods.values()),
            nodes={name: Node.of(body) for name, body in self.nodes.items()},
            offer=self.offers,
            signals=Signals(
                gateways=gateways,
                engines={} if self.engine is None else {"u-1": self.engine},
                notices=self.notices,
                gpu_errors=self.gpu_errors,
            ),
            owner_exists=self.owner_exists,
            namespace_terminating=self.terminating,
            refused=self.refused,
            end_told=self.end_told,
        )

    # What is done.

    def plan(self) -> Plan:
        return plan(self.observed(), self.now)

    def round(self, seconds: float = 0.0) -> Plan:
        """Let time pass, plan, and carry the plan out."""
        self.now += seconds
        made = self.plan()
        for action in made.actions:
            if not self.carry_out(action):
                break
        return made

    def rounds(self, seconds: float = 0.0) -> None:
        """Let time pass, then go on until nothing changes any more."""
        self.now += seconds
        for _ in range(20):
            if self.body is None or not self.round().actions:
                return
        raise AssertionError("the plans never come to rest")

    def carry_out(self, action: Any) -> bool:
        """Do it, and return True; False where the API server would answer 404 or 409."""
        stale = isinstance(action, ApplyStatus | Patch) and not self._is_current(action)
        if stale or (isinstance(action, Create) and action.body["metadata"]["name"] in self.pods):
            return False
        self.done.append(action)
        match action:
            case ApplyStatus():
                self._write(status=action.body["status"])
            case Create() | Apply():
                self._create(action.body)
            case Patch():
                self._patch(action)
            case Delete():
                self._delete(action)
            case Emit():
                self.events.append(action)
        return True

    def _is_current(self, action: ApplyStatus | Patch) -> bool:
        change = action.body if isinstance(action, ApplyStatus) else action.change
        version = change["metadata"].get("resourceVersion")
        if version is None:
            return True
        return self.body is not None and self.body["metadata"]["resourceVersion"] == version

    def _write(self, **parts: Any) -> None:
        assert self.body is not None
        version = int(self.body["metadata"]["resourceVersion"]) + 1
        metadata = {**self.body["metadata"], **parts.pop("metadata", {})}
        metadata["resourceVersion"] = str(version)
        self.body = {**self.body, **parts, "metadata": metadata}

    def _create(self, body: Object) -> None:
        name = body["metadata"]["name"]
        self.created += 1
        metadata = {"uid": f"p-{self.created}", "creationTimestamp": timestamp(self.now)}
        self.pods[name] = {**body, "metadata": {**body["metadata"], **metadata}}

    def _patch(self, action: Patch) -> None:
        if action.resource.plural == "nodes":
            self.nodes[action.name]["metadata"].update(action.change["metadata"])
            return
        finalizers = action.change["metadata"]["finalizers"]
        self._write(metadata={"finalizers": finalizers})
        assert self.body is not None
        if not finalizers and "deletionTimestamp" in self.body["metadata"]:
            self.body = None

    def _delete(self, action: Delete) -> None:
        if action.resource.plural == "replicas":
            self.delete()
        elif (
            action.resource is not PODS
            or action.name not in self.pods
            or self.pods[action.name]["metadata"]["uid"] != action.uid
        ):
            return
        elif action.grace_seconds == 0 or not self.pods[action.name]["spec"].get("nodeName"):
            del self.pods[action.name]
        else:
            until = timestamp(self.now + (action.grace_seconds or 30))
            self.pods[action.name]["metadata"]["deletionTimestamp"] = until

    # What others do.

    def delete(self) -> None:
        """A person or the garbage collector asks for the replica's deletion."""
        self._write(metadata={"deletionTimestamp": timestamp(self.now)})

    def ask(self, **changes: Any) -> None:
        """Its owner changes its spec."""
        assert self.body is not None
        generation = self.body["metadata"]["generation"] + 1
        self._write(metadata={"generation": generation}, spec={**self.body["spec"], **changes})

    def pods_are(self, phase: Phase, reason: Reason | None = None, **words: Any) -> None:
        """The kubelet brings all pods to a phase, or says why not."""
        for name, pod in self.pods.items():
            if name.endswith("-scrub"):
                continue
            pod["spec"]["nodeName"] = self.status.placements[int(name.rsplit("-", 1)[1])].node
            pod["status"] = {"stage": Progress(phase, reason, **words), "podIP": "10.0.0.1"}
            if phase in (Phase.LOADING, Phase.PROBING) and reason is None:
                running = {"running": {"startedAt": timestamp(self.now)}}
                pod["status"]["containerStatuses"] = [{"name": "engine", "state": running}]

    def engine_says(self, **words: Any) -> None:
        """The engine that runs now is asked, and answers."""
        fields = {"healthy": True, "proven": True, "running": 0, "waiting": 0, **words}
        start = started_at(self.pods.values())
        self.engine = EngineState(at=self.now, started_at=start, **fields)

    def gateway_reports(self, gateway: str = "g1", **words: Any) -> None:
        """A gateway publishes its report now."""
        assert self.gateways is not None
        self.gateways[gateway] = GatewayReport(gateway=gateway, published_at=self.now, **words)

    def pods_end(self) -> None:
        """The kubelet confirms that the pods whose deletion was asked for are gone."""
        gone = [name for name, pod in self.pods.items() if "deletionTimestamp" in pod["metadata"]]
        for name in gone:
            del self.pods[name]

    def serve(self) -> "World":
        """Bring a fresh world to Serving."""
        self.rounds()
        self.pods_are(Phase.PROBING)
        self.engine_says(max_model_len=4096)
        self.rounds(1)
        assert self.phase is Phase.SERVING, self.status
        return self
