"""The `Workload` of replicas that run an engine; wired by `main`, called by the replica's plan."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.cluster import PODS, Object
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.replica import Replica
from controlplane.operator.manifests.nodes import leader_worker_set
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.progress import stage
from controlplane.operator.manifests.settings import PodSettings
from controlplane.operator.replica.workload import Manifest, Progress


@dataclass(frozen=True)
class EngineWorkload:
    """Pods that serve a model. GPUs are not scrubbed: what ran on them is ours."""

    settings: PodSettings
    probed = True
    needs_scrub = False

    def manifests(self, replica: Replica) -> list[Manifest]:
        """Return its pod, or the group of its pods.

        Raises:
            Refused: its engine cannot run on its configuration.
        """
        if replica.spec.configuration.nodes > 1:
            return leader_worker_set(replica, self.settings)
        return [(PODS, pod) for pod in engine_pods(replica, self.settings)]

    def stage(self, replica: Replica, pods: Sequence[Object]) -> Progress:
        """Return how far `pods` are."""
        return stage(pods, expected=replica.spec.configuration.nodes)

    def scrub_manifests(self, replica: Replica) -> list[Manifest]:
        """Return nothing."""
        return []

    def scrub_proof(
        self, replica: Replica, pods: Sequence[Object], now: float
    ) -> ScrubProof | None:
        """Return no proof: none is asked for."""
        return None
