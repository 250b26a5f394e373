"""How long a replica takes until it serves: bytes over bandwidth, or what was measured.

Used for the start-up probe, for the time told to whoever waits, and as the autoscaler's lead time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import WeightsSpec
from controlplane.crd.replica import Phase
from controlplane.planner.launch import Launch

FETCH_BYTES_PER_SECOND = 1.25e9  # ten gigabits
SCHEDULING_SECONDS = 10.0  # a node's kubelet takes the pod, the image is there
WARM_UP_SECONDS = {"cuda": 90.0, "cpu": 30.0}  # process start, graphs, a first generation
PROBING_SECONDS = 5.0
SAFETY = 3.0  # of the start-up probe over the estimate: slow is not stuck


@dataclass(frozen=True)
class StartEstimate:
    """Seconds of each stage from reserved GPUs to serving."""

    scheduling_seconds: float
    fetching_seconds: float
    loading_seconds: float
    probing_seconds: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return (
            self.scheduling_seconds
            + self.fetching_seconds
            + self.loading_seconds
            + self.probing_seconds
        )


def estimate_start(
    launch: Launch,
    configuration: GPUConfiguration,
    weights: WeightsSpec,
    *,
    measured_seconds: Mapping[str, float] | None = None,
    fetch_bytes_per_second: float = FETCH_BYTES_PER_SECOND,
) -> StartEstimate:
    """Return how long a start takes.

    Args:
        measured_seconds: by phase, as the same configuration's last replica recorded in
            `status.stages`; takes the place of the formula.
        fetch_bytes_per_second: from where the weights come, unless they lie on a claim; that is
            only read once before, if it has a digest.
    """
    measured = measured_seconds or {}
    fetching = launch.weights_bytes / fetch_bytes_per_second
    if weights.pvc is not None:
        reading = launch.weights_bytes / configuration.read_bytes_per_second
        fetching = reading if weights.digest else 0.0
    return StartEstimate(
        scheduling_seconds=measured.get(Phase.SCHEDULED, SCHEDULING_SECONDS),
        fetching_seconds=measured.get(Phase.FETCHING, fetching),
        loading_seconds=measured.get(Phase.LOADING, loading_seconds(launch, configuration)),
        probing_seconds=measured.get(Phase.PROBING, PROBING_SECONDS),
    )


def loading_seconds(launch: Launch, configuration: GPUConfiguration) -> float:
    """Return bytes over bandwidth, and the engine's own start."""
    reading = launch.weights_bytes / configuration.read_bytes_per_second
    return reading + WARM_UP_SECONDS[launch.device]


def start_limit_seconds(launch: Launch, configuration: GPUConfiguration) -> float:
    """Return after how long loading has failed: what its size explains, with safety."""
    return SAFETY * loading_seconds(launch, configuration)
