"""How a changed spec replaces what runs: the course of the two revisions in one round. Pure.

    surge -> serve (probed) -> canary steps by weight and time -> replace one by one -> take over
                    \\ worse, failed or late: the current revision gets all traffic back, then the
                      candidate is drained, and its revision is refused until the spec changes.

The status holds where a rollout is, so a restarted operator goes on from there. The current
revision's template is in the status too: replicas of it can be made again at any time. Without
room for one more replica within the budget nothing is taken away; the condition says so.
"""

import math
from dataclasses import dataclass, replace

from controlplane.crd.base import seconds, timestamp
from controlplane.crd.conditions import ConditionType
from controlplane.crd.inference import RolloutStatus, Template
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.deployment.demand import evidence
from controlplane.operator.deployment.fleet import NOT_ITS_FAULT, Fleet, failed_at
from controlplane.operator.deployment.history import EVIDENCE_SECONDS
from controlplane.operator.deployment.judgement import Evidence, worse
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.revision import revision, template
from controlplane.operator.deployment.slots import all_slots, free_slots


@dataclass(frozen=True)
class Course:
    """What is wanted of either revision.

    Attributes:
        desired: replicas wanted in all.
        current: the revision that has the traffic, made from `template`.
        keep: replicas of it.
        wanted: the spec's revision.
        candidates: replicas of the spec's revision, if that is another.
        share: percent of traffic for the candidates; None: every replica has its full weight.
        rollout: for the status.
        refused: for the status.
        aborted: why the rollout ends in this very round; empty: it does not.
        no_room: the budget leaves no GPU for a candidate.
    """

    desired: int
    current: str
    template: Template
    keep: int
    wanted: str
    candidates: int = 0
    share: int | None = None
    rollout: RolloutStatus | None = None
    refused: str = ""
    aborted: str = ""
    no_room: bool = False


def course(observed: Observed, fleet: Fleet, desired: int, now: float) -> Course:
    """Return the course for this round, with `desired` replicas in all."""
    status, spec = observed.deployment.status, observed.deployment.spec
    new = template(spec)
    wanted = revision(new)
    current = status.current_revision
    if current in ("", wanted) or status.template is None:
        return Course(desired, wanted, new, desired, wanted)
    old = Course(desired, current, status.template, desired, wanted)
    if status.refused_revision == wanted:
        return replace(old, rollout=status.rollout, refused=wanted)
    if not status.proven or desired == 0:
        return Course(desired, wanted, new, desired, wanted)  # nothing that works has to be kept
    under_way = status.rollout
    if under_way is None or under_way.revision != wanted:
        if not free_slots(observed) and not fleet.of(wanted):
            return replace(old, no_room=all_slots(observed) <= desired)
        under_way = RolloutStatus(revision=wanted, started_at=timestamp(now))
    return _advance(observed, fleet, replace(old, rollout=under_way), under_way, now)


def _advance(
    observed: Observed, fleet: Fleet, old: Course, rollout: RolloutStatus, now: float
) -> Course:
    fault = _fault(observed, fleet, rollout, now)
    if fault:
        ended = rollout.model_copy(update={"aborted": fault, "weight": 0})
        return replace(old, rollout=ended, refused=old.wanted, aborted=fault)
    serving = len(fleet.serving(old.wanted))
    if not serving:
        return _await_candidate(observed, old, rollout, now)
    rollout = _step(observed, rollout, now)
    steps = observed.deployment.spec.rollout.canary_steps
    if rollout.step >= len(steps):
        return _replace(observed, old, rollout, serving)
    share = _share(steps[rollout.step].weight, serving, old.keep)
    rollout = rollout.model_copy(update={"weight": share})
    return replace(
        old, rollout=rollout, candidates=_canaries(observed, rollout, old.keep), share=share
    )


def _await_candidate(observed: Observed, old: Course, rollout: RolloutStatus, now: float) -> Course:
    """No candidate serves: none has yet, or its nodes were lost. Either way none has traffic."""
    if rollout.step_started_at is not None:
        rollout = rollout.model_copy(
            update={"started_at": timestamp(now), "step_started_at": None, "weight": 0}
        )
    canaries = _canaries(observed, rollout, old.keep)
    return replace(old, rollout=rollout, candidates=canaries, share=0)


def _replace(observed: Observed, old: Course, rollout: RolloutStatus, serving: int) -> Course:
    """After the steps: for each candidate that serves one of the current revision may go."""
    if serving >= old.keep:
        new = template(observed.deployment.spec)
        return Course(old.desired, old.wanted, new, old.keep, old.wanted)
    weight = 100 * serving // old.keep
    return replace(
        old,
        rollout=rollout.model_copy(update={"weight": weight}),
        keep=old.keep - serving,
        candidates=old.keep,
    )


def _step(observed: Observed, rollout: RolloutStatus, now: float) -> RolloutStatus:
    """Return the rollout at its step: the next one if this one's time and evidence are in."""
    if rollout.step_started_at is None:
        return rollout.model_copy(update={"step_started_at": timestamp(now)})
    spec, history = observed.deployment.spec.rollout, observed.history
    if rollout.step >= len(spec.canary_steps):
        return rollout
    if now - seconds(rollout.step_started_at) < spec.canary_steps[rollout.step].seconds:
        return rollout
    seen = _evidence(observed, rollout, now).requests
    # Without any request in a whole minute there is nobody to protect, and nothing to wait for.
    covered = history.evidence_at - history.evidence_since >= EVIDENCE_SECONDS
    nobody = covered and not (seen or history.current.requests)
    if seen < spec.abort_on.requests and not nobody:
        return rollout
    return rollout.model_copy(update={"step": rollout.step + 1, "step_started_at": timestamp(now)})


def _evidence(observed: Observed, rollout: RolloutStatus, now: float) -> Evidence:
    """Return the step's evidence of the candidate, or the last minute's if that is more."""
    replicas = [it for it in observed.replicas if it.spec.revision == rollout.revision]
    minute = evidence(observed.signals, replicas, now)
    gathered = observed.history.candidate
    return minute if minute.requests > gathered.requests else gathered


def _canaries(observed: Observed, rollout: RolloutStatus, desired: int) -> int:
    """Return how many candidates the step needs: their share of all replicas, within the surge."""
    spec = observed.deployment.spec.rollout
    step = min(rollout.step, len(spec.canary_steps) - 1)
    weight = spec.canary_steps[step].weight if spec.canary_steps else 100
    return max(1, min(spec.surge, math.ceil(desired * weight / 100)))


def _share(weight: int, serving: int, desired: int) -> int:
    """Return the candidates' share in percent: the step's, if they can carry so much."""
    return max(1, min(weight, 100 * serving // max(1, desired)))


def _fault(observed: Observed, fleet: Fleet, rollout: RolloutStatus, now: float) -> str:
    """Return why the candidate is given up; empty: it is not."""
    spec = observed.deployment.spec.rollout
    for replica in fleet.failed(rollout.revision):
        failure = replica.status.failure
        if failure is None or failure.reason in NOT_ITS_FAULT:
            continue
        if failed_at(replica) < seconds(rollout.started_at):
            continue  # of an earlier attempt
        if not failure.retryable or replica.status.serving_since is not None:
            return f"{replica.name} failed: {failure.reason}: {failure.message}"[:500]
    candidates = fleet.of(rollout.revision)
    if rollout.step_started_at is None:
        late = now - seconds(rollout.started_at) > spec.start_seconds
        if not late or any(it.status.phase is Phase.SERVING for it in candidates):
            return ""
        words = _last_words([*fleet.failed(rollout.revision), *candidates])
        return f"none served within {spec.start_seconds:g} seconds{words}"[:500]
    if candidates and all(it.status.phase is Phase.DEGRADED for it in candidates):
        return "it stopped answering"
    return _compared(observed, fleet, candidates, now)


def _last_words(candidates: list[Replica]) -> str:
    """Return why the last of them that said anything does not serve."""
    told = [
        f"; {it.name}: {ready.reason}: {ready.message}"
        for it in candidates
        for ready in it.status.conditions
        if ready.type == ConditionType.READY and ready.message
    ]
    return told[-1] if told else ""


def _compared(observed: Observed, fleet: Fleet, candidates: list[Replica], now: float) -> str:
    limits, history = observed.deployment.spec.rollout.abort_on, observed.history
    current = fleet.serving(observed.deployment.status.current_revision)
    if not current:
        return ""  # worse than nothing it cannot be
    minute = worse(
        evidence(observed.signals, candidates, now),
        evidence(observed.signals, current, now),
        limits,
    )
    return minute or worse(history.candidate, history.current, limits)


def weights(current: int, candidates: int, share: int | None) -> tuple[int, int]:
    """Return the weights of one replica of each revision that give the candidates their share.

    Args:
        current, candidates: how many of each serve.
        share: percent for all candidates together; None: all alike.
    """
    if share is None or (not current and share > 0):
        return 100, 100
    if share <= 0 or not candidates:
        return 100, 0
    if share >= 100:
        return 0, 100
    ratio = share * current / (candidates * (100 - share))  # a candidate's weight over a current's
    if ratio <= 1:
        return 100, max(1, round(100 * ratio))
    return max(1, round(100 / ratio)), 100
