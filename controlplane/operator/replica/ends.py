"""The end of a replica's life: drained, stopped, its GPUs proven clean, released or given up.

Stopping ends in Failed if a failure was noted, in Released if `drained_by` was, else in another
try. Both are written before the first pod is deleted, so that a restart forgets nothing.
"""

import math

from controlplane.crd.base import GROUP, timestamp
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase, ReplicaStatus, Stage
from controlplane.operator.replica import drain
from controlplane.operator.replica.ending import asked, ending
from controlplane.operator.replica.moves import moved, reserved, since
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.pods import node_of

SCRUB_SECONDS = 900.0
SETTLE_SECONDS = 5.0  # until what makes pods, once deleted, makes none any more
PROVEN_CLEAN_ANNOTATION = f"{GROUP}/proven-clean"  # a person vouches for quarantined GPUs


def draining(observed: Observed, now: float) -> ReplicaStatus:
    status, cause = observed.status, ending(observed, now)
    why = drain.drained_by(observed, status, cause, now)
    if not why and (observed.pods_missing or observed.progress.reason is not None):
        why = drain.GONE
    if not observed.workload.probed and not observed.same_process:
        why = drain.GONE  # what was held is lost: its time is not said to have lasted until now
    if why:
        return moved(status, Phase.STOPPING, now, drained_by=why)
    until = drain.deadline(observed, cause, since(status))
    return status.model_copy(update={"drain_deadline": timestamp(math.ceil(until))})


def stopping(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    if not status.drained_by and status.failure is None and ending(observed, now) is not None:
        status = status.model_copy(update={"drained_by": drain.GONE})
    if not _seen_on_nodes(status) and any(node_of(pod) for pod in observed.pods):
        # They got nodes at the last moment: that must be known when they are gone.
        seen = Stage(phase=Phase.SCHEDULED, seconds=0.0)
        status = status.model_copy(update={"stages": [*status.stages, seen]})
    if observed.pods or (observed.makers and now - since(status) < SETTLE_SECONDS):
        return status
    if must_scrub(observed.at(status)):
        return moved(status, Phase.SCRUBBING, now, scrub=None)
    return _over(status, now)


def must_scrub(observed: Observed) -> bool:
    """Whether somebody else's code ran on GPUs that still exist and will be given to others."""
    status = observed.status
    if not observed.workload.needs_scrub or _tries_again(status):
        return False
    failure = status.failure
    never_bound = failure is not None and failure.reason == Reason.PENDING_TOO_LONG
    # Containers may have started unseen; only pods that were seen without a node cannot have.
    ran = status.attempts > 0 and (not never_bound or _seen_on_nodes(status))
    return ran and any(placement.node in observed.nodes for placement in status.placements)


def _seen_on_nodes(status: ReplicaStatus) -> bool:
    return any(stage.phase not in (Phase.PENDING, Phase.RESERVED) for stage in status.stages)


def _tries_again(status: ReplicaStatus) -> bool:
    return status.failure is None and not status.drained_by


def _over(status: ReplicaStatus, now: float) -> ReplicaStatus:
    if _tries_again(status):
        return reserved(status, now)
    phase = Phase.RELEASED if status.failure is None else Phase.FAILED
    return moved(
        status, phase, now, placements=[], url="", reserved_until=None, drain_deadline=None
    )


def scrubbing(observed: Observed, now: float) -> ReplicaStatus:
    status = observed.status
    if not must_scrub(observed):
        return status if observed.all_pods else _over(status, now)
    if observed.namespace_terminating:
        # Nothing can be made here any more: `plan` takes the nodes out of use instead.
        kept = any(not node.quarantined for node in observed.nodes.values())
        return status if observed.all_pods or kept else _over(status, now)
    if status.scrub is None:
        proof = observed.workload.scrub_proof(observed.replica, observed.scrub_pods, now)
        if proof is not None:
            return status.model_copy(update={"scrub": proof})
        late = now - since(status) >= SCRUB_SECONDS
        return moved(status, Phase.QUARANTINED, now) if late else status
    if not status.scrub.ok:
        return moved(status, Phase.QUARANTINED, now)
    return status if observed.all_pods else _over(status, now)


def quarantined(observed: Observed, now: float) -> ReplicaStatus:
    vouched = PROVEN_CLEAN_ANNOTATION in observed.replica.annotations
    if (vouched or not must_scrub(observed)) and not observed.all_pods:
        return _over(observed.status, now)
    return observed.status


def released(observed: Observed, now: float) -> ReplicaStatus:
    return observed.status


def given_up(observed: Observed, now: float) -> ReplicaStatus:
    """Failed: it stays, to tell why, until its owner or a person lets it go."""
    if asked(observed) is not None and not observed.all_pods:
        return moved(observed.status, Phase.RELEASED, now)
    return observed.status
