"""Whether a spec makes sense on this cluster; what does not runs on as it is, and nothing is made.

Called by `plan`; the words end up in the condition Accepted.
"""

from typing import NamedTuple

from controlplane.crd.conditions import Reason
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.windows import UnknownTimezone, timezone


class Refusal(NamedTuple):
    """Why a spec cannot be made true."""

    reason: Reason
    message: str


def refusal(observed: Observed) -> Refusal | None:
    """Return why nothing may be made for the deployment; None: it is accepted."""
    return (
        _namespace(observed) or _zones(observed) or _configurations(observed) or _budget(observed)
    )


def _namespace(observed: Observed) -> Refusal | None:
    spec, namespace = observed.deployment.spec, observed.namespace
    if namespace.tenant == spec.tenant:  # both empty: a pool in a namespace of nobody
        return None
    if spec.path == "dedicated":
        message = (
            f"namespace {observed.deployment.namespace} is not labelled as tenant {spec.tenant}'s"
        )
    else:
        message = f"a pool cannot be in the namespace of tenant {namespace.tenant}"
    return Refusal(Reason.NAMESPACE_NOT_TENANT, message)


def _zones(observed: Observed) -> Refusal | None:
    spec = observed.deployment.spec
    schedules = spec.scaling.schedules if spec.scaling is not None else []
    try:
        for window in (*spec.windows, *schedules):
            timezone(window.timezone)
    except UnknownTimezone as error:
        return Refusal(Reason.INVALID_SPEC, str(error))
    return None


def _configurations(observed: Observed) -> Refusal | None:
    if observed.usable:
        on_demand = any(not it.spot for it in observed.usable)
        if observed.deployment.spec.spot.on_demand_base and not on_demand:
            message = "spot.onDemandBase asks for on-demand GPUs, and no configuration has them"
            return Refusal(Reason.INVALID_SPEC, message)
        return None
    listed = observed.deployment.spec.configurations
    known = [it for it in listed if it in observed.catalogue]
    if not known:
        names = ", ".join(listed)
        message = f"the catalogue has no GPU configuration called {names}"
        return Refusal(Reason.UNKNOWN_CONFIGURATION, message)
    for name in known:
        verdict = observed.verdicts.get(name)
        if verdict is not None and verdict.refused is not None:
            return Refusal(verdict.refused, f"{name}: {verdict.message}")
    return Refusal(Reason.INVALID_SPEC, "no configuration could be planned")


def _budget(observed: Observed) -> Refusal | None:
    budget = observed.deployment.spec.budget_gpus
    largest = max(observed.usable, key=lambda it: it.count)
    if budget is None or budget >= largest.count:
        return None
    message = f"budgetGPUs is {budget}, one replica on {largest.id} takes {largest.count}"
    return Refusal(Reason.QUOTA_EXCEEDED, message)


def passed_over(observed: Observed) -> str:
    """Return which listed configurations are never used, for the message of what is accepted."""
    usable = {it.id for it in observed.usable}
    left = [it for it in observed.deployment.spec.configurations if it not in usable]
    return f"not used: {', '.join(left)}" if left else ""
