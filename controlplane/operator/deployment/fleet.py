"""A deployment's replicas, sorted by what they can still be counted on for. Pure.

The name of a replica is its claim on a slot: a slot is free only when the object is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.crd.base import seconds
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.deployment.observed import Observed

ENDED = (Phase.RELEASED, Phase.FAILED)
_LEAVING = (Phase.DRAINING, Phase.STOPPING, Phase.SCRUBBING, Phase.RELEASED, Phase.FAILED)
_GONE = (*_LEAVING, Phase.QUARANTINED)
LOADING = (Phase.RESERVED, Phase.SCHEDULED, Phase.FETCHING, Phase.LOADING, Phase.PROBING)
NOT_ITS_FAULT = (
    Reason.NODE_LOST,
    Reason.PREEMPTED,
    Reason.GPU_FAULT,
    Reason.PENDING_TOO_LONG,
    Reason.WAITING_FOR_CAPACITY,
)


@dataclass(frozen=True)
class Fleet:
    """Replicas by what becomes of them.

    Attributes:
        every: all objects there are.
        live: neither ending nor about to lose their nodes: what counts against the wanted number.
        noticed: told by the provider to be gone soon; no longer counted on.
    """

    every: tuple[Replica, ...]
    live: tuple[Replica, ...]
    noticed: tuple[Replica, ...]

    def of(self, revision: str) -> list[Replica]:
        """Return the live ones of a revision."""
        return [it for it in self.live if it.spec.revision == revision]

    def serving(self, revision: str | None = None) -> list[Replica]:
        """Return the live ones that can be asked."""
        return [
            it
            for it in self.live
            if it.status.phase is Phase.SERVING
            and (revision is None or it.spec.revision == revision)
        ]

    @property
    def loading(self) -> list[Replica]:
        """Live ones that hold GPUs and do not serve yet; those that wait for GPUs are not here."""
        return [it for it in self.live if it.status.phase in LOADING]

    @property
    def ended(self) -> list[Replica]:
        """Those whose GPUs are free."""
        return [it for it in self.every if it.status.phase in ENDED]

    @property
    def draining(self) -> list[Replica]:
        """Those that are leaving, and still hold GPUs."""
        return [it for it in self.every if it.status.phase not in ENDED and is_leaving(it)]

    def failed(self, revision: str) -> list[Replica]:
        """Return a revision's failed ones that are still there, the newest last."""
        failed = [
            it
            for it in self.every
            if it.status.phase is Phase.FAILED and it.spec.revision == revision
        ]
        return sorted(failed, key=failed_at)


def sort(observed: Observed) -> Fleet:
    """Return the deployment's replicas, sorted."""
    live: list[Replica] = []
    noticed: list[Replica] = []
    for replica in observed.replicas:
        if is_leaving(replica) or replica.status.phase in _GONE:
            continue
        nodes = {placement.node for placement in replica.status.placements}
        (noticed if nodes & observed.signals.notices.keys() else live).append(replica)
    return Fleet(observed.replicas, tuple(live), tuple(noticed))


def is_leaving(replica: Replica) -> bool:
    """Tell whether a replica was told to end, or is ending."""
    return bool(replica.spec.drain) or replica.deleting or replica.status.phase in _LEAVING


def holds_gpus(replica: Replica) -> bool:
    """Tell whether GPUs are, or may any moment be, set aside for it."""
    return replica.status.phase not in ENDED


def failed_at(replica: Replica) -> float:
    """Return when it was given up, in seconds since 1970."""
    failure = replica.status.failure
    return seconds(failure.at) if failure is not None else replica.created_at


def is_fresh(replica: Replica) -> bool:
    """Tell whether its status speaks of its present spec."""
    return replica.status.observed_generation >= replica.generation


def measured_start_seconds(replicas: Sequence[Replica]) -> float | None:
    """Return the newest measured cold start: the stages before Serving, summed."""
    served = [it for it in replicas if it.status.serving_since is not None and it.status.stages]
    if not served:
        return None
    newest = max(served, key=lambda it: it.status.serving_since or "")
    before = [stage for stage in newest.status.stages if stage.phase in LOADING]
    return sum(stage.seconds for stage in before) or None
