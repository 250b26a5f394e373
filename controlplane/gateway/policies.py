"""How a replica is chosen among those that can serve; pure functions, one name each in settings.

Called by `router`. A policy gets candidates that are never empty and returns one of them.
"""

from collections.abc import Callable, Mapping, Sequence

from controlplane.registry.replicas import Replica

# (sqrt(5) - 1) / 2
_GOLDEN = 0.6180339887498949

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


def share(candidates: Sequence[Replica], turn: int) -> Sequence[Replica]:
    """Return the candidates of one weight: over the turns each weight comes as often as all its
    replicas' shares say.

    Turns fall by the golden ratio, which spreads any run of them evenly (Weyl's sequence): a share
    of 5 % is one of 20 requests, not a lucky one of 100. Inside a weight the policy chooses.

    Args:
        candidates: replicas of one deployment, of weights above 0.
        turn: a number that grows by one a choice.
    """
    weights = sorted({replica.weight for replica in candidates}, reverse=True)
    point = turn * _GOLDEN % 1.0 * sum(replica.weight for replica in candidates)
    for weight in weights:
        equals = [replica for replica in candidates if replica.weight == weight]
        point -= weight * len(equals)
        if point < 0:
            break
    return equals


POLICIES: dict[str, Policy] = {"least_inflight": least_inflight, "round_robin": round_robin}


def policy(name: str) -> Policy:
    """Return a policy by its name.

    Raises:
        ValueError: no such policy; the message lists the known ones.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown router policy {name!r}; known are {', '.join(sorted(POLICIES))}")
    return POLICIES[name]
