"""Slots of the GPU budget: as many names as replicas that can never be too many.

A replica's name is `<deployment>-<slot>`. The largest listed configuration sizes the slots, so even
replicas that a stale cache does not show cannot exceed the budget: their names are taken.
"""

from controlplane.operator.deployment.fleet import holds_gpus
from controlplane.operator.deployment.observed import Observed


def budget_slots(observed: Observed) -> int | None:
    """Return how many replicas the budget allows, surge included; None: there is no budget."""
    budget, largest = observed.deployment.spec.budget_gpus, observed.largest_count
    return None if budget is None or not largest else budget // largest


def all_slots(observed: Observed) -> int:
    """Return the number of slots: what max and surge allow, within the budget."""
    spec = observed.deployment.spec
    most = spec.scaling.max if spec.scaling is not None else (spec.replicas or 0)
    limit = budget_slots(observed)
    wanted = most + spec.rollout.surge
    return wanted if limit is None else min(wanted, limit)


def free_slots(observed: Observed) -> list[int]:
    """Return the slots nobody has, ascending; one is taken until its object is gone."""
    taken = {replica.spec.slot for replica in observed.replicas} | observed.taken_slots
    return [slot for slot in range(all_slots(observed)) if slot not in taken]


def free_gpus(observed: Observed) -> int | None:
    """Return what is left of the budget besides all replicas that may hold GPUs; None: no limit.

    One that cannot be read may hold as many as any.
    """
    budget = observed.deployment.spec.budget_gpus
    if budget is None:
        return None
    held = sum(it.spec.configuration.count for it in observed.replicas if holds_gpus(it))
    return budget - held - len(observed.taken_slots) * observed.largest_count
