"""What runs in a replica, as its controller sees it: an engine, or a customer's container.

`manifests.pods` has the engines' workload, `bare.workload` the leases'. All methods are pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from controlplane.cluster import Object, Resource
from controlplane.crd.conditions import Reason
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.replica import Phase, Replica

Manifest: TypeAlias = tuple[Resource, Object]


@dataclass(frozen=True)
class Progress:
    """How far a replica's pods are.

    Attributes:
        phase: Reserved (pods missing or without a node), Scheduled, Fetching, Loading or Probing
            (every pod is ready now).
        reason: why they cannot get further; None while they can.
        message: for people.
        retryable: whether new pods may fare better.
    """

    phase: Phase
    reason: Reason | None = None
    message: str = ""
    retryable: bool = True


class Workload(Protocol):
    """One way to use a replica's GPUs."""

    @property
    def probed(self) -> bool:
        """Whether Serving takes one completed generation; else ready pods are enough."""

    @property
    def needs_scrub(self) -> bool:
        """Whether its GPUs are free only after a proof that nothing was left on them."""

    def manifests(self, replica: Replica) -> list[Manifest]:
        """Return its pods, or what makes them, for `status.placements`; labelled REPLICA_LABEL.

        Raises:
            Refused: it cannot run on its configuration.
        """

    def stage(self, replica: Replica, pods: Sequence[Object]) -> Progress:
        """Return how far `pods`, scrub pods not among them, are."""

    def scrub_manifests(self, replica: Replica) -> list[Manifest]:
        """Return the pods that prove its GPUs clean; told from the others by their names."""

    def scrub_proof(
        self, replica: Replica, pods: Sequence[Object], now: float
    ) -> ScrubProof | None:
        """Return what its scrub pods found, all nodes together; None while one is at work."""
