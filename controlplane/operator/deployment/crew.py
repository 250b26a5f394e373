"""Which replicas are made and which drained, to have as many of each revision as is wanted. Pure.

Nothing that serves goes before enough others do, except on a spec that wants fewer.
"""

from collections.abc import Iterator, Sequence

from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.actions import Action
from controlplane.operator.deployment import replicas
from controlplane.operator.deployment.choice import (
    FAILED_KEPT_SECONDS,
    Room,
    is_final,
    is_waiting,
    pause_seconds,
)
from controlplane.operator.deployment.demand import inflight_of
from controlplane.operator.deployment.fleet import Fleet, failed_at
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.revision import template
from controlplane.operator.deployment.rollout import Course, weights

_WAIT_FOR_STOCK_SECONDS = 60.0


def weigh(fleet: Fleet, course: Course) -> Iterator[Action]:
    """Yield the weights, the current revision's first: its traffic is restored before all else."""
    current, candidates = fleet.serving(course.current), fleet.serving(course.wanted)
    full, part = weights(len(current), len(candidates), course.share)
    yield from replicas.weigh(fleet.of(course.current), full)
    if course.wanted == course.current:
        return
    given_up = course.refused == course.wanted
    if not given_up:
        yield from replicas.weigh(fleet.of(course.wanted), part)
    elif current:
        yield from replicas.weigh(fleet.of(course.wanted), 0)


def drain(
    observed: Observed, fleet: Fleet, course: Course, why: Reason, now: float
) -> Iterator[Action]:
    """Yield the drains: what is too much, misplaced, or of a revision that is no longer wanted."""
    current, candidates = fleet.of(course.current), []
    if course.wanted != course.current and course.refused != course.wanted:
        candidates = fleet.of(course.wanted)
    known = {it.uid for it in (*current, *candidates)}
    strays = [it for it in fleet.live if it.uid not in known]
    yield from _drain_strays(fleet, course, strays)
    yield from _drain_surplus(observed, current, course.keep, why)
    if candidates:
        yield from _drain_surplus(observed, candidates, course.candidates, Reason.ROLLING_OUT)
    yield from _drain_unplaceable(observed, fleet, now)


def _drain_strays(fleet: Fleet, course: Course, strays: Sequence[Replica]) -> Iterator[Action]:
    """Replicas of other revisions go as far as others serve in their place."""
    spare = len(fleet.serving()) - course.keep - course.candidates
    given_up = bool(fleet.serving(course.current))
    for replica in strays:
        refused = replica.spec.revision == course.refused
        serves = replica.status.phase is Phase.SERVING
        if serves and spare <= 0 and not (refused and given_up):
            continue
        spare -= int(serves)
        yield replicas.drain(replica, Reason.CANARY_ABORTED if refused else Reason.ROLLING_OUT)


def _drain_surplus(
    observed: Observed, live: Sequence[Replica], keep: int, why: Reason
) -> Iterator[Action]:
    """Of the live ones of a revision the least useful go; misplaced ones once others serve."""
    listed = {it.id for it in observed.usable}
    placed = [it for it in live if it.spec.configuration.id in listed]
    spare = sum(1 for it in live if it.status.phase is Phase.SERVING) - keep
    for replica in _least_useful(observed, placed)[: max(0, len(placed) - keep)]:
        spare -= int(replica.status.phase is Phase.SERVING)
        yield replicas.drain(replica, why)
    for replica in live:
        if replica in placed:
            continue
        serves = replica.status.phase is Phase.SERVING
        if not serves or spare > 0:
            spare -= int(serves)
            yield replicas.drain(replica, why)


def _least_useful(observed: Observed, live: Sequence[Replica]) -> list[Replica]:
    """Return them in the order they go: waiting, not serving, dear, idle, newest ones first."""
    order = [it.id for it in observed.usable]
    base = observed.deployment.spec.spot.on_demand_base
    protected = {it.uid for it in [it for it in live if not it.spec.spot][:base]}

    def usefulness(replica: Replica) -> tuple[float, ...]:
        return (
            not is_waiting(replica),
            replica.status.phase is Phase.SERVING,
            replica.uid in protected,
            -order.index(replica.spec.configuration.id),
            inflight_of(observed.signals, replica),
            -replica.spec.slot,
        )

    return sorted(live, key=usefulness)


def _drain_unplaceable(observed: Observed, fleet: Fleet, now: float) -> Iterator[Action]:
    """Replicas that wait for a configuration without stock give way when another one has some."""
    spot = observed.deployment.spec.spot
    for replica in fleet.live:
        if not is_waiting(replica) or now - replica.created_at < _WAIT_FOR_STOCK_SECONDS:
            continue
        wants_spot = replica.spec.spot
        others = [
            it.id
            for it in observed.usable
            if (it.spot == wants_spot or (wants_spot and spot.fallback))
        ]
        without = observed.stock.get(replica.spec.configuration.id) == 0
        if without and any(observed.stock.get(it, 0) > 0 for it in others):
            yield replicas.drain(replica, Reason.WAITING_FOR_CAPACITY)


def create(observed: Observed, fleet: Fleet, course: Course, now: float) -> Iterator[Action]:
    """Yield the replicas to make, in free slots, within surge and budget."""
    deployment = observed.deployment
    room = Room(observed, fleet, now)
    left = course.desired + deployment.spec.rollout.surge - len(fleet.live)
    groups = [(course.current, course.template, course.keep, 100)]
    if course.candidates:
        new = template(deployment.spec)
        groups.append((course.wanted, new, course.candidates, 0))
    listed = {it.id for it in observed.usable}
    for name, of, wanted, weight in groups:
        placed = [it for it in fleet.of(name) if it.spec.configuration.id in listed]
        proven = name == course.current and deployment.status.proven
        if pause_seconds(fleet, name, now, proven=proven) > 0:
            continue
        for _ in range(min(wanted - len(placed), left)):
            claim = room.claim()
            if claim is None:
                return
            left -= 1
            yield replicas.create(deployment, of, claim, weight)


def remove(observed: Observed, fleet: Fleet, course: Course, now: float) -> Iterator[Action]:
    """Yield the removal of ended replicas; failed ones stay for a while to be looked at."""
    room = Room(observed, fleet, now)
    short = not room.slots
    for replica in fleet.ended:
        if replica.deleting:
            continue
        if replica.status.phase is Phase.RELEASED or _forgotten(
            observed, fleet, course, replica, now
        ):
            yield replicas.remove(replica)
        elif short and _may_be_tried_again(observed, fleet, replica, now):
            short = False
            yield replicas.remove(replica)


def _forgotten(
    observed: Observed, fleet: Fleet, course: Course, replica: Replica, now: float
) -> bool:
    if replica.spec.revision not in (course.current, course.wanted):
        return True
    if _is_last_word(observed, replica):
        return False
    return now - failed_at(replica) >= FAILED_KEPT_SECONDS


def _may_be_tried_again(observed: Observed, fleet: Fleet, replica: Replica, now: float) -> bool:
    proven = _is_proven(observed, replica)
    return pause_seconds(fleet, replica.spec.revision, now, proven=proven) <= 0


def _is_last_word(observed: Observed, replica: Replica) -> bool:
    return is_final(replica) and not _is_proven(observed, replica)


def _is_proven(observed: Observed, replica: Replica) -> bool:
    status = observed.deployment.status
    return status.proven and replica.spec.revision == status.current_revision
