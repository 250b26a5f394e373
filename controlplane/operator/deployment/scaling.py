"""From what is observed to the law's inputs, and what is remembered for its windows.

`remember` is called with every look at a deployment, before its plan; `inputs` by both.
"""

from dataclasses import replace

from controlplane.crd.base import seconds
from controlplane.crd.inference import Scaling
from controlplane.operator.deployment import law
from controlplane.operator.deployment.demand import Demand, demand, evidence
from controlplane.operator.deployment.fleet import Fleet, sort
from controlplane.operator.deployment.history import History
from controlplane.operator.deployment.judgement import NONE
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.slots import budget_slots
from controlplane.operator.deployment.windows import (
    UnknownTimezone,
    is_open,
    scheduled_minimum,
)

_LONG_AGO_SECONDS = 86_400.0


def remember(observed: Observed, now: float) -> Observed:
    """Return it with this moment added to its history."""
    scaling, history = observed.deployment.spec.scaling, observed.history
    fleet = sort(observed)
    asked = _demand(observed, fleet, now)
    history = _with_evidence(history.looked_at(now), observed, fleet, now)
    if not asked.complete:
        history = replace(history, evidence_since=now, evidence_at=now)
    if scaling is None:
        return replace(observed, history=history)
    if asked.load is not None:
        history = history.with_load(now, asked.load, keep_seconds=scaling.panic_seconds)
    history = replace(history, busy_at=_busy_at(history, fleet, asked, now))
    observed = replace(observed, history=history)
    try:
        wanted = law.recommended(_inputs(observed, scaling, fleet, asked, now)).replicas
    except UnknownTimezone:
        return observed  # the spec is refused; nothing is scaled by it
    kept = history.with_wanted(now, wanted, keep_seconds=scaling.stabilization_seconds)
    return replace(observed, history=kept)


def _busy_at(history: History, fleet: Fleet, asked: Demand, now: float) -> float:
    """Return the moment from which idle time counts: at the earliest that of the last start."""
    if asked.load or asked.held or not asked.complete or fleet.loading:
        return now
    starts = (seconds(it.status.serving_since) for it in fleet.live if it.status.serving_since)
    return max(history.busy_at, *starts, history.busy_at)


def decide(observed: Observed, now: float) -> tuple[law.Inputs, law.Outcome]:
    """Return how many replicas are wanted now, and from what.

    Raises:
        UnknownTimezone: a window's zone does not exist.
    """
    spec, fleet = observed.deployment.spec, sort(observed)
    closed = spec.stopped or not is_open(spec.windows, now)
    if spec.scaling is None or closed:
        found = law.Inputs(
            before=observed.deployment.status.desired,
            fixed=spec.replicas,
            closed=int(closed),
        )
    else:
        asked = _demand(observed, fleet, now)
        found = _inputs(observed, spec.scaling, fleet, asked, now)
    return found, law.law(found)


def missing_signals(observed: Observed, now: float) -> bool:
    """Tell whether scaling lacks a signal."""
    return not _demand(observed, sort(observed), now).complete


def _demand(observed: Observed, fleet: Fleet, now: float) -> Demand:
    return demand(observed.signals, observed.deployment.key, fleet.live, now)


def _inputs(
    observed: Observed, scaling: Scaling, fleet: Fleet, asked: Demand, now: float
) -> law.Inputs:
    history, status = observed.history, observed.deployment.status
    decided_at = seconds(status.decisions[-1].at) if status.decisions else 0.0
    load = history.mean_load() if asked.load is not None else None
    limit = budget_slots(observed)
    rollout = status.rollout
    return law.Inputs(
        before=status.desired,
        frozen=int(rollout is not None and rollout.aborted is None),
        minimum=max(scaling.min, scheduled_minimum(scaling.schedules, now)),
        maximum=scaling.max if limit is None else min(scaling.max, limit),
        warm=scaling.warm,
        load=round(load, 3) if load is not None else None,
        held=asked.held,
        target_inflight=_target_inflight(observed, scaling),
        kv=round(asked.kv, 3) if asked.kv is not None else None,
        # Of equal numbers, as when all of the limit is to be spare, every use is too much.
        kv_full=max(scaling.kv_limit - scaling.kv_spare, 0.01),
        ttft_ms=asked.ttft_p95_ms,
        ttft_target_ms=scaling.ttft_p95_ms,
        itl_ms=asked.itl_p95_ms,
        itl_target_ms=scaling.itl_p95_ms,
        loading=len(fleet.loading),
        complete=int(asked.complete),
        window_max=history.most_wanted(now, scaling.stabilization_seconds),
        idle=int(now - history.busy_at >= scaling.idle_seconds),
        since_step_seconds=min(now - decided_at, _LONG_AGO_SECONDS),
        cold_start_seconds=observed.cold_start_seconds,
    )


def _target_inflight(observed: Observed, scaling: Scaling) -> int:
    """Return the spec's number, else the least that a configuration in use carries."""
    if scaling.target_inflight is not None:
        return scaling.target_inflight
    used = {it.spec.configuration.id for it in observed.replicas}
    verdicts = [observed.verdicts[it] for it in used if it in observed.verdicts]
    preferred = [observed.verdicts[it.id] for it in observed.usable[:1]]
    return max(1, min((it.inflight for it in verdicts or preferred), default=1))


def _with_evidence(history: History, observed: Observed, fleet: Fleet, now: float) -> History:
    """Add up what both revisions' requests experienced during the rollout's present step."""
    rollout = observed.deployment.status.rollout
    if rollout is None or rollout.step_started_at is None or rollout.aborted is not None:
        return history.with_evidence("", now, NONE, NONE)
    current = observed.deployment.status.current_revision
    return history.with_evidence(
        f"{rollout.revision} {rollout.step} {rollout.step_started_at}",
        now,
        evidence(observed.signals, fleet.of(rollout.revision), now),
        evidence(observed.signals, fleet.of(current), now),
    )
