"""What an endpoint's status says: pure, from what there is. Called by `plan`."""

from controlplane.crd.base import timestamp
from controlplane.crd.conditions import Condition, ConditionType, Reason, Status, condition
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint, GPUEndpointStatus
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.bare.observed import Observed
from controlplane.operator.bare.ports import urls
from controlplane.operator.tenants.namespace import isolation

# An endpoint's word for its replica's phase.
PHASES = {
    Phase.PENDING: "Pending",
    Phase.RESERVED: "Scheduled",
    Phase.SCHEDULED: "Scheduled",
    Phase.FETCHING: "Sanitizing",
    Phase.LOADING: "Booting",
    Phase.PROBING: "Booting",
    Phase.SERVING: "Ready",
    Phase.DEGRADED: "Degraded",
    Phase.DRAINING: "Reclaiming",
    Phase.STOPPING: "Reclaiming",
    Phase.SCRUBBING: "Scrubbing",
    Phase.RELEASED: "Released",
    Phase.FAILED: "Failed",
    Phase.QUARANTINED: "Quarantined",
}
_ON_ITS_WAY = (
    Phase.PENDING,
    Phase.RESERVED,
    Phase.SCHEDULED,
    Phase.FETCHING,
    Phase.LOADING,
    Phase.PROBING,
)


def status(
    observed: Observed, *, problem: tuple[Reason, str] | None, now: float
) -> GPUEndpointStatus:
    """Return the whole status.

    Args:
        problem: why the spec cannot be done here; None when it can.
    """
    endpoint, replica = observed.endpoint, observed.replica
    serving = replica is not None and replica.status.phase is Phase.SERVING
    return GPUEndpointStatus(
        observed_generation=endpoint.generation,
        phase=_phase(endpoint, replica),
        conditions=_conditions(observed, problem, now),
        replica=replica.name if replica else "",
        skipped=endpoint.status.skipped,
        host=observed.access.host if serving else "",
        host_key_fingerprint=observed.access.fingerprint if serving else "",
        gpu_uuids=list(observed.gpu_uuids) if serving else [],
        urls=urls(endpoint, observed.exposure) if serving else {},
        billed_since=replica.status.serving_since if serving and replica else None,
        expires_at=_expires_at(endpoint),
        hourly_usd=replica.spec.configuration.hourly_usd if serving and replica else None,
    )


def _phase(endpoint: GPUEndpoint, replica: Replica | None) -> str:
    if replica is not None:
        return PHASES[replica.status.phase]
    if endpoint.deleting:
        return "Released"
    return "Stopped" if endpoint.spec.state == "Stopped" else "Pending"


def _expires_at(endpoint: GPUEndpoint) -> str | None:
    if endpoint.spec.ttl_seconds is None:
        return None
    return timestamp(endpoint.created_at + endpoint.spec.ttl_seconds)


def _conditions(
    observed: Observed, problem: tuple[Reason, str] | None, now: float
) -> list[Condition]:
    endpoint = observed.endpoint

    def say(
        kind: ConditionType, value: bool | Status, reason: Reason, message: str = ""
    ) -> Condition:
        return condition(
            endpoint.status.conditions,
            kind,
            value,
            reason,
            message,
            generation=endpoint.generation,
            now=now,
        )

    ready, why, message = _readiness(observed, problem)
    accepted = problem if problem is not None else (Reason.AS_WANTED, "")
    conditions = [
        say(ConditionType.READY, ready, why, message),
        say(ConditionType.ACCEPTED, problem is None, *accepted),
        say(ConditionType.ISOLATION_ENFORCED, *isolation(observed.namespace)),
    ]
    replica = observed.replica
    if replica is not None and replica.status.phase is Phase.QUARANTINED:
        scrub = replica.status.scrub
        text = scrub.message if scrub else ""
        conditions.append(say(ConditionType.GPU_HEALTHY, False, Reason.SCRUB_FAILED, text))
    return conditions


def _readiness(observed: Observed, problem: tuple[Reason, str] | None) -> tuple[bool, Reason, str]:
    endpoint, replica = observed.endpoint, observed.replica
    if endpoint.deleting:
        return False, Reason.DELETING, ""
    if problem is not None:
        return False, *problem
    if replica is None:
        stopped = endpoint.spec.state == "Stopped"
        why = observed.namespace.why_suspended
        return False, Reason.STOPPED if stopped else Reason.STARTING, why
    state = replica.status
    if state.phase is Phase.SERVING:
        return True, Reason.AS_WANTED, ""
    if state.phase is Phase.QUARANTINED:
        return False, Reason.SCRUB_FAILED, state.scrub.message if state.scrub else ""
    if state.failure is not None:
        return False, Reason(state.failure.reason), state.failure.message
    if state.phase is Phase.PENDING:
        return False, Reason.WAITING_FOR_CAPACITY, _waits_for(replica.spec.configuration)
    if state.phase in _ON_ITS_WAY:
        return False, Reason.STARTING, PHASES[state.phase]
    if state.phase is Phase.DEGRADED:
        return False, Reason.NODE_LOST, "its container does not run"
    return False, Reason.DRAINING, PHASES[state.phase]


def _waits_for(configuration: GPUConfiguration) -> str:
    return f"waits for {configuration.count} x {configuration.gpu} ({configuration.id})"
