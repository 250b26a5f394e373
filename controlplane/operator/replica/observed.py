"""What a plan for one replica rests on. Filled by `controller`, plain data in tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from controlplane.cluster import LEADER_WORKER_SETS, Object
from controlplane.crd.base import timestamp
from controlplane.crd.replica import Phase, Placement, Replica, ReplicaStatus
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.health.table import XID_ACTIONS, Action
from controlplane.operator.replica.pods import names, started_at
from controlplane.operator.replica.workload import Manifest, Progress, Workload
from controlplane.operator.signals import EngineState, Signals
from controlplane.planner.refusal import Refused


@dataclass(frozen=True)
class Observed:
    """One replica and what there is of it.

    Attributes:
        replica: the object as last seen or written.
        workload: what runs in it.
        all_pods: every pod with its label in its namespace, scrub pods among them.
        nodes: the existing ones among the nodes of its placements and pods, by name.
        offer: GPUs held for it until this round's status is written, while it waits for some;
            empty: none are free.
        signals: of gateways, engines, providers and drivers.
        owner_exists: whether its deployment or endpoint is there.
        namespace_terminating: whether its namespace is being deleted.
        refused: the API server's last refusal of its writes; empty: it refused nothing.
        end_told: whether jobs know of its end, which is what its bill rests on.
        xid_actions: what each GPU error asks for.
    """

    replica: Replica
    workload: Workload
    all_pods: tuple[Object, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    offer: tuple[Placement, ...] = ()
    signals: Signals = field(default_factory=Signals)
    owner_exists: bool = True
    namespace_terminating: bool = False
    refused: str = ""
    end_told: bool = True
    xid_actions: Mapping[int, Action] = field(default_factory=lambda: XID_ACTIONS)

    @property
    def status(self) -> ReplicaStatus:
        return self.replica.status

    @cached_property
    def scrub_names(self) -> set[str]:
        """Names of the pods that prove its GPUs clean."""
        return (
            names(self.workload.scrub_manifests(self.replica)) if self.status.placements else set()
        )

    @cached_property
    def pods(self) -> tuple[Object, ...]:
        """Its pods without those that scrub."""
        scrubs = self.scrub_names if self.workload.needs_scrub else set()
        return tuple(pod for pod in self.all_pods if pod["metadata"]["name"] not in scrubs)

    @cached_property
    def scrub_pods(self) -> tuple[Object, ...]:
        """The pods that prove its GPUs clean."""
        return tuple(pod for pod in self.all_pods if pod not in self.pods)

    @cached_property
    def pods_missing(self) -> bool:
        """Whether a pod of its gang is not there."""
        if not self.pods:
            return True
        return not names(self.manifests) <= {pod["metadata"]["name"] for pod in self.pods}

    @cached_property
    def refusal(self) -> Refused | None:
        """Why it can run nowhere; None: it can."""
        try:
            self.workload.manifests(self.replica)
        except Refused as refused:
            return refused
        return None

    @cached_property
    def manifests(self) -> Sequence[Manifest]:
        """Its pods, or what makes them; none where they cannot be."""
        return () if self.refusal is not None else self.workload.manifests(self.replica)

    @cached_property
    def makers(self) -> Sequence[Manifest]:
        """What makes its pods, where they are not made one by one."""
        if not self.status.placements:
            return ()
        return [it for it in self.manifests if it[0] is LEADER_WORKER_SETS]

    @cached_property
    def progress(self) -> Progress:
        """How far its pods are."""
        if not self.pods:
            return Progress(Phase.RESERVED)
        return self.workload.stage(self.replica, self.pods)

    @property
    def same_process(self) -> bool:
        """Whether the process that was proven is the one that runs, by its node's own clock."""
        start = started_at(self.pods)
        return start is not None and timestamp(start) == self.status.engine_started_at

    @property
    def engine(self) -> EngineState | None:
        """What its engine told last."""
        return self.signals.engines.get(self.replica.uid)

    def at(self, status: ReplicaStatus) -> "Observed":
        """Return the same with another status, for the next step of one round."""
        return replace(self, replica=self.replica.model_copy(update={"status": status}))
