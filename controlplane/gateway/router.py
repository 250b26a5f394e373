"""Which replica serves a request: the registry's last snapshot, requests in flight, ejections.

Called by `dispatch` for every attempt, by `admission`, `waiting`, `reporting` and `catalog`; fed by
`polling`. While the store is down the last snapshot stays: replicas that died meanwhile are found
by connecting to them.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from controlplane.errors import Unavailable
from controlplane.gateway.latency import Latencies
from controlplane.gateway.policies import Policy, share
from controlplane.gateway.snapshot import NOTHING, Route, Served, Snapshot
from controlplane.gateway.visit import Visit
from controlplane.registry.gateways import GatewayReport
from controlplane.registry.pools import Pool
from controlplane.registry.replicas import Replica

EJECTION_SECONDS = 2.0
# The longest context DeepSeek-V4 has, for a deployment that has not told its own yet.
MAX_CONTEXT_TOKENS = 2**20


class NoReplica(Unavailable):
    """Nobody serves the model now; that may change any moment."""

    default_code = "no_replica"


class NoneOpen(NoReplica):
    """There is not even one to ask."""


class Router:
    """Chooses replicas. All of it runs on the event loop's thread."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._snapshot = Snapshot()
        self._inflight: Counter[str] = Counter()
        self._latencies = Latencies()
        self._ejected_until: dict[str, float] = {}
        self._turn = 0
        self._turns: Counter[str] = Counter()  # by deployment
        self._context_windows: dict[Route, int] = {}
        self._watchers: list[Callable[[], None]] = []

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called after every new snapshot."""
        self._watchers.append(watcher)

    def update(self, replicas: Sequence[Replica], pools: Sequence[Pool] = ()) -> None:
        """Take what the registry says now."""
        self.take(Snapshot(replicas, pools, self.draining))

    @property
    def draining(self) -> frozenset[str]:
        """Ids of the replicas that never take a request again, whatever an older word of them may
        say: their drain may have been acknowledged."""
        return self._snapshot.draining

    def take(self, snapshot: Snapshot) -> None:
        """Go by `snapshot` from now on; it was made with `draining` as it still is."""
        self._snapshot = snapshot
        self._ejected_until = {
            replica_id: until
            for replica_id, until in self._ejected_until.items()
            if replica_id in snapshot.ids
        }
        routes = snapshot.routes
        for route in [it for it in self._context_windows if it.tenant_id and it not in routes]:
            del self._context_windows[route]
        for route, served in routes.items():
            if served.max_model_len:
                self._context_windows[route] = served.max_model_len
        for watcher in self._watchers:
            watcher()

    def resolve(self, model: str, tenant_id: str) -> Route:
        """Return where a tenant's request belongs; nobody need serve there."""
        return self._snapshot.resolve(model, tenant_id)

    def dedicated_models(self, tenant_id: str) -> Sequence[str]:
        """Return the names of a tenant's own deployments, sorted."""
        return self._snapshot.dedicated.get(tenant_id, ())

    def served(self, route: Route) -> Served:
        """Return what there is on `route`."""
        return self._snapshot.routes.get(route, NOTHING)

    def max_model_len(self, route: Route) -> int:
        """Return the longest context a request on `route` may have, in tokens.

        Raises:
            NoReplica: no replica is open, and no deployment could start one.
        """
        served = self.served(route)
        if not served.open and served.pool is None:
            raise NoneOpen(f"no replica of {route.model!r} is ready")
        return served.max_model_len or self._context_windows.get(route, MAX_CONTEXT_TOKENS)

    def context_window(self, route: Route) -> int | None:
        """Return the longest context last seen served, in tokens; None if never seen."""
        return self._context_windows.get(route)

    def choose(self, route: Route, tried: Collection[str] = ()) -> Replica:
        """Return an open replica, if possible one neither tried nor ejected.

        The policy chooses among all; where the replicas of the chosen one's deployment have
        different weights, these have the last word on which of them.

        Raises:
            NoneOpen: no replica takes new requests.
        """
        served = self.served(route)
        if not served.open:
            raise NoneOpen(f"no replica of {route.model!r} is ready")
        untried = [it for it in served.open if it.id not in tried] if tried else served.open
        untried = untried or served.open
        if self._ejected_until:
            now = time.monotonic()
            # With every replica ejected, an ejected one is the best guess: it may be back already.
            sound = [r for r in untried if self._ejected_until.get(r.id, 0.0) <= now]
            untried = sound or untried
        self._turn += 1
        chosen = self._policy(untried, self._inflight, self._turn)
        if chosen.deployment not in served.weighted:
            return chosen
        self._turns[chosen.deployment] += 1
        siblings = [it for it in untried if it.deployment == chosen.deployment]
        return self._policy(
            share(siblings, self._turns[chosen.deployment]), self._inflight, self._turn
        )

    def eject(self, replica: Replica) -> None:
        """Pass over a replica that could not be reached, for a moment."""
        self._ejected_until[replica.id] = time.monotonic() + EJECTION_SECONDS

    def enter(self, replica: Replica) -> Visit:
        """Count a request against a replica until it leaves.

        Nothing may be awaited since its choice: whatever is reported in between would not know.
        """
        self._inflight[replica.id] += 1
        return Visit(replica, self._leave)

    def _leave(self, visit: Visit) -> None:
        replica_id = visit.replica.id
        self._inflight[replica_id] -= 1
        assert self._inflight[replica_id] >= 0
        if not self._inflight[replica_id]:
            del self._inflight[replica_id]
        self._latencies.record(
            replica_id,
            time.monotonic(),
            ttft_ms=visit.ttft_ms,
            itl_ms=visit.itl_ms,
            is_error=visit.failed,
        )

    def report(self, gateway: str, held: dict[str, int]) -> GatewayReport:
        """Return what is in flight at this moment.

        A draining replica is listed as such from the snapshot in which no request can choose it
        any more, so a zero is final.
        """
        return GatewayReport(
            gateway=gateway,
            published_at=time.time(),
            inflight=dict(self._inflight),
            draining={it: self._inflight.get(it, 0) for it in self.draining},
            held=held,
            latency=self._latencies.report(time.monotonic()),
        )
