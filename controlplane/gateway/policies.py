"""How a replica is chosen among those that can serve; pure functions, one name each in settings.

Called by `router`. A policy gets candidates that are never empty and returns one of them.
"""

from collections.abc import Callable, Mapping, Sequence

from controlplane.registry.replicas import Replica

Policy = Callable[[Sequence[Replica], Mapping[str, int], int], Replica]


def least_inflight(
    candidates: Sequence[Replica], inflight: Mapping[str, int], turn: int
) -> Replica:
    """Return the replica with the fewest requests in flight; equals take turns.

    Args:
        candidates: the replicas to choose from.
        inflight: requests in flight by replica id; absent is none.
        turn: a number that grows by one a choice.
    """
    fewest = min(inflight.get(replica.id, 0) for replica in candidates)
    equals = [replica for replica in candidates if inflight.get(replica.id, 0) == fewest]
    return equals[turn % len(equals)]


def round_robin(candidates: Sequence[Replica], inflight: Mapping[str, int], turn: int) -> Replica:
    """Return each replica in turn, whatever is in flight."""
    return candidates[turn % len(candidates)]


POLICIES: dict[str, Policy] = {"least_inflight": least_inflight, "round_robin": round_robin}


def policy(name: str) -> Policy:
    """Return a policy by its name.

    Raises:
        ValueError: no such policy; the message lists the known ones.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown router policy {name!r}; known are {', '.join(sorted(POLICIES))}")
    return POLICIES[name]
