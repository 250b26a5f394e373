"""A replica's conditions: each is there because somebody can act on it."""

from controlplane.crd.base import seconds
from controlplane.crd.conditions import Condition, ConditionType, Reason, condition
from controlplane.crd.conditions import Status as Word
from controlplane.crd.replica import Phase, ReplicaStatus
from controlplane.operator.health.table import Action
from controlplane.operator.replica.ending import ending, gpu_verdict
from controlplane.operator.replica.observed import Observed

# Deletion takes this long, beyond the pods' own grace, before a person is told.
CLEANUP_SECONDS = 180.0

_ENDING = (Phase.DRAINING, Phase.STOPPING, Phase.SCRUBBING)
_OVER = (Phase.RELEASED, Phase.FAILED)

Said = tuple[Word, Reason, str]


def with_conditions(observed: Observed, status: ReplicaStatus, now: float) -> ReplicaStatus:
    """Return `status` with conditions, its generation and the newest GPU error filled in."""
    said = {
        ConditionType.READY: _ready(observed, status, now),
        ConditionType.CAPACITY_RESERVED: _reserved(status),
        ConditionType.GPU_HEALTHY: _gpu_healthy(observed, status, now),
        ConditionType.CLEANUP_BLOCKED: _blocked(observed, status, now),
    }
    before = observed.status.conditions
    generation = observed.replica.generation
    conditions: list[Condition] = [
        condition(before, type, *words, generation=generation, now=now)
        for type, words in said.items()
        if words is not None
    ]
    xid = gpu_verdict(observed, now).xid
    return status.model_copy(
        update={
            "conditions": conditions,
            "observed_generation": generation,
            "xid": status.xid if xid is None else xid,
        }
    )


def _ready(observed: Observed, status: ReplicaStatus, now: float) -> Said:
    if status.phase is Phase.SERVING:
        return "True", Reason.AS_WANTED, ""
    if status.phase is Phase.DEGRADED:
        engine = observed.engine
        return "False", Reason.ENGINE_FAILED, engine.error if engine else "it does not answer"
    if status.phase is Phase.QUARANTINED:
        proof = status.scrub
        return "False", Reason.SCRUB_FAILED, proof.message if proof else "no proof in time"
    if status.failure is not None:
        return "False", Reason(status.failure.reason), status.failure.message
    if status.phase is Phase.RELEASED:
        return "False", Reason.STOPPED, _last_message(observed)
    cause = ending(observed, now)
    if cause is not None:
        return "False", cause.reason, cause.message
    if status.phase in _ENDING and status.phase == observed.status.phase:
        return _as_before(observed)
    if observed.refused and status.phase is Phase.RESERVED:
        return "False", Reason.CLUSTER_REFUSED, observed.refused
    return _starting(observed)


def _starting(observed: Observed) -> Said:
    """Why the last try failed is told until one succeeds, though another is under way."""
    progress, before = observed.progress, _as_before(observed)
    if progress.reason is not None:
        return "False", progress.reason, progress.message
    return before if before[1] is Reason.ENGINE_FAILED else ("False", Reason.STARTING, "")


def _as_before(observed: Observed) -> Said:
    """What began an end may have passed; its words stay."""
    for it in observed.status.conditions:
        if it.type == ConditionType.READY:
            return it.status, Reason(it.reason), it.message
    return "False", Reason.DRAINING, ""


def _last_message(observed: Observed) -> str:
    return _as_before(observed)[2]


def _reserved(status: ReplicaStatus) -> Said:
    if status.placements:
        return "True", Reason.AS_WANTED, ""
    if status.phase in _OVER:
        failure = status.failure
        return "False", Reason(failure.reason) if failure else Reason.STOPPED, ""
    return "False", Reason.WAITING_FOR_CAPACITY, "no nodes with enough free GPUs now"


def _gpu_healthy(observed: Observed, status: ReplicaStatus, now: float) -> Said | None:
    if not status.placements:
        return None
    for placement in status.placements:
        node = observed.nodes.get(placement.node)
        if node is not None and node.quarantined:
            return "False", Reason.GPU_FAULT, f"node {node.name}: {node.quarantined}"
    judged = gpu_verdict(observed, now)
    if judged.action > Action.IGNORE:
        return "False", Reason.GPU_FAULT, judged.message
    return "True", Reason.AS_WANTED, judged.message


def _blocked(observed: Observed, status: ReplicaStatus, now: float) -> Said | None:
    """Deletion waits for something a person must see to. Absent while nothing is the matter."""
    if status.phase is Phase.QUARANTINED:
        return "True", Reason.SCRUB_FAILED, "its GPUs stay reserved until somebody vouches for them"
    if observed.refused and status.phase in (*_ENDING, *_OVER):
        return "True", Reason.CLUSTER_REFUSED, observed.refused
    if status.phase is not Phase.STOPPING or status.phase_since is None or not observed.all_pods:
        return None
    if now - seconds(status.phase_since) < CLEANUP_SECONDS:
        return None
    names = ", ".join(sorted(pod["metadata"]["name"] for pod in observed.all_pods))
    message = (
        f"pods do not end: {names}; if their machine is off, delete its node or taint it"
        " node.kubernetes.io/out-of-service"
    )
    return "True", Reason.NODE_LOST, message
