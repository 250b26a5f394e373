"""Why a replica has to end, and until when it may finish what it does."""

from dataclasses import dataclass

from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase
from controlplane.operator.health.table import Action
from controlplane.operator.health.verdict import Verdict, verdict
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.pods import disrupted, goes_at, going, made_at

# A node that is not ready for this long is lost: its kubelet has been silent for 40 s by then.
NODE_GRACE_SECONDS = 30.0
# What is left of a notice for deleting the pods.
NOTICE_MARGIN_SECONDS = 5.0


@dataclass(frozen=True)
class Ending:
    """A cause, with words for the status.

    Attributes:
        by: when it is over at the latest because of somebody else, seconds since 1970 UTC; None:
            the replica's own drain timeout holds.
        lost: it is over already.
    """

    reason: Reason
    message: str
    by: float | None = None
    lost: bool = False


def ending(observed: Observed, now: float) -> Ending | None:
    """Return why the replica has to end, the most pressing cause first; None: it has not."""
    return (
        _node_lost(observed, now)
        or _taken_away(observed, now)
        or asked(observed)
        or _disrupted(observed)
        or _gpu_fault(observed, now)
    )


def gpu_verdict(observed: Observed, now: float) -> Verdict:
    """Judge the errors of its nodes' GPUs since its pods were made."""
    since = made_at(observed.pods) if observed.pods else now
    judged = [
        verdict(
            observed.signals.gpu_errors.get(placement.node, ()),
            observed.xid_actions,
            since=since,
            now=now,
        )
        for placement in observed.status.placements
    ]
    return max(judged, key=lambda it: it.action, default=Verdict())


def _node_lost(observed: Observed, now: float) -> Ending | None:
    for placement in observed.status.placements:
        node = observed.nodes.get(placement.node)
        if node is None:
            return Ending(Reason.NODE_LOST, f"node {placement.node} is gone", lost=True)
        if node.out_of_service:
            return Ending(Reason.NODE_LOST, f"node {node.name} is out of service", lost=True)
        if not node.ready and now - node.changed_at >= NODE_GRACE_SECONDS:
            return Ending(Reason.NODE_LOST, f"node {node.name} is not ready", lost=True)
    return None


def node_lost_in_seconds(observed: Observed, now: float) -> float | None:
    """Return when a node that is not ready now counts as lost; None if all are ready."""
    left = [
        node.changed_at + NODE_GRACE_SECONDS - now
        for placement in observed.status.placements
        if (node := observed.nodes.get(placement.node)) is not None and not node.ready
    ]
    return min((it for it in left if it > 0), default=None)


def _taken_away(observed: Observed, now: float) -> Ending | None:
    notices = [
        (observed.signals.notices[placement.node], placement.node)
        for placement in observed.status.placements
        if placement.node in observed.signals.notices
    ]
    if not notices:
        return None
    at, node = min(notices)
    message = f"node {node} is taken away by its provider"
    return Ending(Reason.PREEMPTED, message, by=at - NOTICE_MARGIN_SECONDS)


def asked(observed: Observed) -> Ending | None:
    """Return by whom its end is wanted; None: by nobody."""
    replica = observed.replica
    if observed.namespace_terminating:
        return Ending(Reason.NAMESPACE_TERMINATING, "its namespace is being deleted")
    if replica.deleting:
        return Ending(Reason.DELETING, "it is being deleted")
    if replica.spec.drain:
        return Ending(Reason.DRAINING, replica.spec.drain)
    if not observed.owner_exists:
        return Ending(Reason.DELETING, f"{replica.spec.owner} is gone")
    return None


def _disrupted(observed: Observed) -> Ending | None:
    """A pod is being deleted by somebody else: it gets no new work for the time it has left."""
    if observed.status.phase is Phase.STOPPING:
        return None  # that is our own doing
    for pod in observed.pods:
        why = disrupted(pod)
        if going(pod):
            why = why or f"pod {pod['metadata']['name']} is being deleted"
            return Ending(Reason.PREEMPTED, why, by=goes_at(pod))
        if why:
            return Ending(Reason.PREEMPTED, why)
    return None


def _gpu_fault(observed: Observed, now: float) -> Ending | None:
    for placement in observed.status.placements:
        node = observed.nodes.get(placement.node)
        if node is not None and node.quarantined:
            return Ending(Reason.GPU_FAULT, f"node {node.name} is quarantined: {node.quarantined}")
    judged = gpu_verdict(observed, now)
    if judged.action >= Action.RESET_GPU:
        return Ending(Reason.GPU_FAULT, f"XID {judged.xid}: {judged.message}")
    return None
