"""A deployment's status, as a pure function of what is seen and decided. Called by `plan`.

What moves by itself is not in it: the time to serve is the estimate made when the phase began, and
the number of held requests is renewed only with something else, or when it leaves or reaches zero.
"""

from controlplane.crd.base import OWNER_LABEL, timestamp
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.inference import Decision, InferenceDeploymentStatus
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.deployment import law
from controlplane.operator.deployment.conditions import Scene, conditions
from controlplane.operator.deployment.fleet import ENDED, LOADING, Fleet, is_leaving
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.revision import endpoint

_DECISIONS = 10


def status(
    scene: Scene, decision: tuple[law.Inputs, law.Outcome] | None, now: float
) -> InferenceDeploymentStatus:
    """Return the status to have; equal to the present one if nothing has changed."""
    observed, fleet, course = scene.observed, scene.fleet, scene.course
    deployment, before = observed.deployment, observed.deployment.status
    word = phase(scene)
    made = before.model_copy(
        update={
            "observed_generation": deployment.generation,
            "phase": word,
            "conditions": conditions(scene, now),
            "replicas": len(fleet.every),
            "desired": scene.desired,
            "serving": len(fleet.serving()),
            "loading": len(fleet.loading),
            "draining": len(fleet.draining),
            "gpus": sum(p.gpus for it in _holders(fleet) for p in it.status.placements),
            "held_requests": held_requests(observed),
            "selector": f"{OWNER_LABEL}={deployment.name}",
            "endpoint": endpoint(deployment, deployment.spec.model),
            "hourly_usd": _hourly_usd(fleet),
            "eta_seconds": before.eta_seconds
            if before.phase == word
            else estimate_seconds(observed, fleet, word, now),
        }
    )
    if course is not None:
        made = made.model_copy(
            update={
                "current_revision": course.current,
                "template": course.template,
                "rollout": course.rollout,
                "refused_revision": course.refused,
                "proven": _proven(scene),
                "endpoint": endpoint(deployment, course.template.model),
            }
        )
    made = _with_decision(made, decision, now)
    quiet = made.model_copy(update={"held_requests": before.held_requests})
    flipped = bool(made.held_requests) != bool(before.held_requests)
    return quiet if quiet == before and not flipped else made


def _holders(fleet: Fleet) -> list[Replica]:
    return [it for it in fleet.every if it.status.phase not in ENDED]


def _proven(scene: Scene) -> bool:
    course, before = scene.course, scene.observed.deployment.status
    assert course is not None
    if before.proven and before.current_revision == course.current:
        return True
    return any(
        it.spec.revision == course.current and it.status.serving_since is not None
        for it in scene.fleet.every
    )


def _with_decision(
    made: InferenceDeploymentStatus, decision: tuple[law.Inputs, law.Outcome] | None, now: float
) -> InferenceDeploymentStatus:
    if decision is None or decision[1].after == decision[0].before:
        return made
    entry: Decision = law.record(*decision, timestamp(now))
    return made.model_copy(update={"decisions": [*made.decisions, entry][-_DECISIONS:]})


def held_requests(observed: Observed) -> int:
    """Return the requests that wait for the deployment, as gateways told last."""
    reports = observed.signals.gateways
    if reports is None:
        return observed.deployment.status.held_requests
    return sum(report.held.get(observed.deployment.key, 0) for report in reports)


def _hourly_usd(fleet: Fleet) -> float | None:
    used: list[GPUConfiguration] = [
        it.spec.configuration for it in _holders(fleet) if it.status.placements
    ]
    prices = [it.hourly_usd for it in used if it.hourly_usd is not None]
    return round(sum(prices), 4) if len(prices) == len(used) else None


def phase(scene: Scene) -> str:
    """Return the word for what the deployment is doing, as waiting clients see it."""
    deployment, fleet = scene.observed.deployment, scene.fleet
    if deployment.deleting:
        return "Deleting"
    if fleet.serving():
        return Phase.SERVING.value
    if any(it.status.phase is Phase.DEGRADED for it in fleet.live):
        return Phase.DEGRADED.value
    if scene.refusal is not None:
        return "Refused"
    ways = [it.status.phase for it in fleet.loading]
    if ways:
        return max(ways, key=LOADING.index).value
    if scene.desired == 0:
        if fleet.draining:
            return Phase.DRAINING.value
        return "Stopped" if scene.closed else "Idle"
    if scene.pause_seconds > 0 and not fleet.live:
        return Phase.FAILED.value
    return Phase.PENDING.value


def estimate_seconds(observed: Observed, fleet: Fleet, word: str, now: float) -> float | None:
    """Return the estimated time until a replica serves: 0 when one does, None when none will."""
    if word == Phase.SERVING.value:
        return 0.0
    if word in ("Deleting", "Refused", "Stopped", Phase.FAILED.value):
        return None
    whole = observed.cold_start_seconds
    begun = [it.created_at for it in fleet.loading if not is_leaving(it)]
    if not begun:
        return round(whole, 1)
    return round(max(1.0, whole - (now - min(begun))), 1)
