"""What a plan for one deployment rests on, as data. Made by `controller`, read by everything else.

Missing is not zero: what could not be read is None or absent, and nothing is given up on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Replica
from controlplane.operator.deployment.history import History
from controlplane.operator.signals import Signals
from controlplane.operator.tenants.namespace import Namespace

START_SECONDS = 180.0  # of a cold start that nobody has measured or estimated yet


@dataclass(frozen=True)
class Verdict:
    """What the planner says of the deployment on one GPU configuration.

    Attributes:
        refused: why it cannot run there; None: it can.
        message: for people.
        inflight: requests one replica can have at once.
        start_seconds: estimate from reservation to serving; None: unknown.
        max_model_len: the longest context it would serve, in tokens; 0: unknown.
    """

    refused: Reason | None = None
    message: str = ""
    inflight: int = 1
    start_seconds: float | None = None
    max_model_len: int = 0


@dataclass(frozen=True)
class Observed:
    """Everything a plan for one deployment rests on.

    Attributes:
        deployment: the object as last seen or written.
        replicas: its own, in order of slot, until they are gone.
        taken_slots: whose names others have, or replicas that cannot be read.
        catalogue: every GPU configuration, by id.
        verdicts: the planner's, by id of the configurations that its spec lists.
        stock: replicas that free GPUs allow now, by configuration id; absent: unknown.
        namespace: facts about its namespace.
        signals: of gateways, engines and providers.
        history: of its load, this moment included.
        start_seconds: the newest measured cold start; None: none measured yet.
        refused: the API server's last refusal of a write for it; empty: it refused nothing.
    """

    deployment: InferenceDeployment
    history: History
    replicas: tuple[Replica, ...] = ()
    taken_slots: frozenset[int] = frozenset()
    catalogue: Mapping[str, GPUConfiguration] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    stock: Mapping[str, int] = field(default_factory=dict)
    namespace: Namespace = field(default_factory=Namespace)
    signals: Signals = field(default_factory=Signals)
    start_seconds: float | None = None
    refused: str = ""

    @property
    def largest_count(self) -> int:
        """GPUs of its largest usable configuration; 0 without any."""
        return max((it.count for it in self.usable), default=0)

    @property
    def usable(self) -> tuple[GPUConfiguration, ...]:
        """The listed configurations it can run on, in the spec's order."""
        return tuple(
            self.catalogue[it]
            for it in self.deployment.spec.configurations
            if it in self.catalogue and it in self.verdicts and self.verdicts[it].refused is None
        )

    @property
    def cold_start_seconds(self) -> float:
        """From reservation to serving: measured, else estimated, else assumed."""
        if self.start_seconds is not None:
            return self.start_seconds
        estimates = (self.verdicts[it.id].start_seconds for it in self.usable)
        return next((it for it in estimates if it is not None), START_SECONDS)
