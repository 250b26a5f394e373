"""What the registry says, put in order once so that every request finds its replicas at once; pure.

Made by `router` from each reading of the registry.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from controlplane.pricing.drafts import DEDICATED, SERVERLESS
from controlplane.registry.heartbeats import STALE_SECONDS
from controlplane.registry.pools import Pool
from controlplane.registry.replicas import Replica

# An operator that is silent for so long is not believed any more: a dead pod's address may be
# another's by then. Until then its replicas serve on without it.
SILENCE_SECONDS = 120.0


class Route(NamedTuple):
    """Who may serve a request: the replicas that say exactly this of themselves.

    `tenant_id` is empty on the serverless path, whose replicas are everybody's, and never on the
    dedicated one.
    """

    model: str
    path: str
    tenant_id: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """What there is on a route.

    Attributes:
        open: the replicas that take new requests.
        weighted: the deployments whose open replicas have different weights.
        pool: the deployment that demand for more counts for; None for the built-in worker alone.
        max_model_len: the longest context of open replicas, else of pools, in tokens; 0 if unknown.
    """

    open: tuple[Replica, ...] = ()
    weighted: frozenset[str] = frozenset()
    pool: Pool | None = None
    max_model_len: int = 0


NOTHING = Served()


class Snapshot:
    """One reading of the registry.

    It costs about 10 µs a replica, so `polling` makes it in its thread.

    Attributes:
        ids: of all replicas.
        routes: what there is, by route.
        draining: ids of the replicas that take no new request any more.
        dedicated: names of the models on the dedicated path, sorted, by tenant.
    """

    def __init__(
        self,
        replicas: Iterable[Replica] = (),
        pools: Iterable[Pool] = (),
        retired: Collection[str] = (),
    ) -> None:
        """Put a reading in order; `retired` are replicas that drain whatever it says."""
        open_on: defaultdict[Route, list[Replica]] = defaultdict(list)
        pools_of: defaultdict[Route, list[Pool]] = defaultdict(list)
        ids: set[str] = set()
        draining: set[str] = set()
        for replica in replicas:
            ids.add(replica.id)
            found = open_on[Route(replica.model, replica.path, replica.tenant_id)]
            if replica.draining or replica.id in retired:
                draining.add(replica.id)
            elif replica.weight > 0:
                found.append(replica)
        for pool in pools:
            pools_of[Route(pool.model, pool.path, pool.tenant_id)].append(pool)
        self.ids = frozenset(ids)
        self.draining = frozenset(draining)
        self.routes = {
            route: _served(open_on.get(route, ()), pools_of.get(route, ()))
            for route in (*open_on, *pools_of)
        }
        names: defaultdict[str, list[str]] = defaultdict(list)
        for route in sorted(self.routes):
            if route.path == DEDICATED:
                names[route.tenant_id].append(route.model)
        self.dedicated = {tenant_id: tuple(found) for tenant_id, found in names.items()}

    def resolve(self, model: str, tenant_id: str) -> Route:
        """Return the route of a tenant's request: to its own deployment of that name, else to what
        is everybody's. Another tenant's deployment is as unknown as none at all."""
        assert tenant_id
        own = Route(model, DEDICATED, tenant_id)
        return own if own in self.routes else Route(model, SERVERLESS)


def _served(replicas: Sequence[Replica], pools: Sequence[Pool]) -> Served:
    weights: defaultdict[str, set[int]] = defaultdict(set)
    for replica in replicas if len(replicas) > 1 else ():
        weights[replica.deployment].add(replica.weight)
    lengths = [it.max_model_len for it in replicas] or [it.max_model_len for it in pools]
    return Served(
        open=tuple(replicas),
        weighted=frozenset(name for name, found in weights.items() if len(found) > 1),
        # Where something is wanted already, so that one request does not start two deployments.
        pool=min(pools, key=lambda it: (not it.startable, not it.desired, it.name), default=None),
        max_model_len=max(lengths, default=0),
    )


def believed(
    replicas: Iterable[Replica], pools: Iterable[Pool], now: float
) -> tuple[list[Replica], list[Pool]]:
    """Return what of a reading still holds at `now`, in seconds since 1970.

    The built-in worker speaks for itself. All else is told by the operator: what it has stopped
    saying is over, but when it is altogether silent its last word holds for `SILENCE_SECONDS`.
    """
    replicas, pools = list(replicas), list(pools)
    by_operator: list[Pool | Replica] = [*pools, *(it for it in replicas if it.deployment)]
    last_word = max((it.published_at for it in by_operator), default=now)
    since = max(min(last_word, now) - STALE_SECONDS, now - SILENCE_SECONDS)
    fresh = [
        it
        for it in replicas
        if it.published_at >= (since if it.deployment else now - STALE_SECONDS)
    ]
    return fresh, [it for it in pools if it.published_at >= since]
