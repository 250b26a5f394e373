"""Where the next replica goes: slot, budget and GPU configuration, one claim after another. Pure.

Configurations are tried in the spec's order, cheapest first. One without stock, or whose GPUs
lately did not come in time, is passed over; if all are, the first waits for capacity.
"""

from collections import Counter
from dataclasses import dataclass

from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.deployment.fleet import Fleet, failed_at
from controlplane.operator.deployment.observed import Observed
from controlplane.operator.deployment.slots import free_gpus, free_slots

FAILED_KEPT_SECONDS = 600.0  # a failed replica stays to be looked at, if its slot is not needed
FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 300.0
NO_GPUS = (Reason.PENDING_TOO_LONG, Reason.WAITING_FOR_CAPACITY, Reason.PREEMPTED)


@dataclass(frozen=True)
class Claim:
    """A slot and what to put there."""

    slot: int
    configuration: GPUConfiguration


class Room:
    """What may still be made in this round; every claim leaves less."""

    def __init__(self, observed: Observed, fleet: Fleet, now: float) -> None:
        self._spec = observed.deployment.spec
        self._usable = observed.usable
        self.slots = free_slots(observed)
        self._gpus = free_gpus(observed)
        self._stock = observed.stock
        self._taken = Counter(it.spec.configuration.id for it in fleet.live if is_waiting(it))
        self._on_demand = sum(1 for it in fleet.live if not it.spec.spot)
        self._noticed = bool(fleet.noticed)
        self._short = _short(fleet, now)

    def claim(self) -> Claim | None:
        """Take a slot and GPUs for one replica; None: budget or configurations allow none."""
        choice = self._choose() if self.slots else None
        if choice is None:
            return None
        slot = self.slots.pop(0)
        self._taken[choice.id] += 1
        self._on_demand += 0 if choice.spot else 1
        if self._gpus is not None:
            self._gpus -= choice.count
        return Claim(slot, choice)

    def _choose(self) -> GPUConfiguration | None:
        affordable = [it for it in self._eligible() if self._gpus is None or it.count <= self._gpus]
        likely = (it for it in affordable if self._has_stock(it))
        return next(likely, next(iter(affordable), None))

    def _has_stock(self, configuration: GPUConfiguration) -> bool:
        """Tell whether its GPUs may come soon; an unknown stock may have some."""
        if configuration.id in self._short:
            return False
        stock = self._stock.get(configuration.id)
        return stock is None or stock > self._taken[configuration.id]

    def _eligible(self) -> list[GPUConfiguration]:
        """Return the configurations the next replica may use, in the order to try them."""
        on_demand = [it for it in self._usable if not it.spot]
        spot = [it for it in self._usable if it.spot]
        if self._on_demand < self._spec.spot.on_demand_base or not spot:
            return on_demand
        if not self._spec.spot.fallback:
            return spot
        # A notice says that spot is being taken back: what replaces it shall stay.
        return [*on_demand, *spot] if self._noticed else list(self._usable)


def is_waiting(replica: Replica) -> bool:
    """Tell whether a replica still waits for GPUs."""
    return replica.status.phase is Phase.PENDING and not replica.status.placements


def _short(fleet: Fleet, now: float) -> set[str]:
    return {
        it.spec.configuration.id
        for it in fleet.every
        if it.status.failure is not None
        and it.status.failure.reason in NO_GPUS
        and now - failed_at(it) < FAILED_KEPT_SECONDS
    }


def pause_seconds(fleet: Fleet, revision: str, now: float, *, proven: bool) -> float:
    """Return how long no replica of a revision is made after it failed to start.

    Doubled with every failure that is still there, so at most with every slot; infinite after one
    that cannot get better, if the revision has never served. Missing GPUs do not count: the next
    configuration is tried.
    """
    failures = [it for it in fleet.failed(revision) if not _lacked_gpus(it)]
    if not proven and any(is_final(it) for it in failures):
        return float("inf")
    recent = [it for it in failures if now - failed_at(it) < FAILED_KEPT_SECONDS]
    if not recent:
        return 0.0
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (len(recent) - 1), LONGEST_PAUSE_SECONDS)
    return max(0.0, failed_at(recent[-1]) + pause - now)


def is_final(replica: Replica) -> bool:
    """Tell whether a replica failed in a way that another try does not better."""
    failure = replica.status.failure
    return failure is not None and not failure.retryable


def _lacked_gpus(replica: Replica) -> bool:
    failure = replica.status.failure
    return failure is not None and failure.reason in NO_GPUS
