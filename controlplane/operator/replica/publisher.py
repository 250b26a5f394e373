"""Tells gateways who can be asked and jobs which GPU time is proven.

What has changed is told within a second, everything is repeated every three: well within the time
that gateways believe it, and a third of the work where there are thousands of replicas.

A store that is down costs nothing: gateways keep their last snapshot, and a lease's `alive_since`
reaches back over the gap. What is proven is what was seen: an engine's own answer, or a container
that its node's kubelet vouches for. A kubelet is believed only until it could have fallen silent,
so that a machine that dies is not billed for the time until that was noticed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import redis

from controlplane.cluster import Object
from controlplane.crd.base import seconds
from controlplane.crd.conditions import ConditionType, Reason
from controlplane.crd.replica import Phase, Replica, ReplicaStatus
from controlplane.operator.replica.drain import GONE
from controlplane.operator.replica.pods import started_at
from controlplane.operator.signals import EngineState
from controlplane.registry import leases, replicas
from controlplane.registry.leases import Lease
from controlplane.store import Store

REPEATED_EVERY = 3  # tellings, which come every second
# A node whose kubelet fell silent is told not ready after 40 s; until then its pods look alive.
KUBELET_SILENCE_SECONDS = 50.0
# Leases that are over stay to be read for so long.
ENDED_SECONDS = 3600.0
_ALIVE = frozenset(
    {
        Phase.SERVING,
        Phase.DEGRADED,
        Phase.RESERVED,
        Phase.SCHEDULED,
        Phase.FETCHING,
        Phase.LOADING,
        Phase.PROBING,
    }
)


def routed(replica: Replica, now: float) -> replicas.Replica | None:
    """Return what gateways are told of a replica; None: it is not to be asked."""
    status, spec = replica.status, replica.spec
    if spec.path == "bare" or status.phase not in (Phase.SERVING, Phase.DRAINING):
        return None
    return replicas.Replica(
        id=replica.uid,
        url=status.url,
        model=spec.model,
        path=spec.path,
        max_model_len=status.max_model_len,
        published_at=now,
        deployment=f"{replica.namespace}/{spec.owner}",
        tenant_id=spec.tenant if spec.path == "dedicated" else "",
        weight=spec.weight,
        draining=status.phase is Phase.DRAINING,
    )


def proof(
    replica: Replica,
    pods: Sequence[Object],
    engine: EngineState | None,
    *,
    watched_at: float,
) -> Lease | None:
    """Return the newest proof of a billed replica's life; None: there is none now.

    Args:
        watched_at: until when the API server is known to have told every change of pods.
    """
    status, spec = replica.status, replica.spec
    if spec.path == "serverless" or status.phase is not Phase.SERVING:
        return None
    start = started_at(pods)
    if start is None or status.engine_started_at is None:
        return None
    if seconds(status.engine_started_at) != int(start):
        return None
    if spec.path == "bare":
        proven_at = watched_at - KUBELET_SILENCE_SECONDS
    elif engine is not None and engine.healthy and engine.started_at == start:
        proven_at = engine.at
    else:
        return None
    assert status.phase_since is not None
    # Written to the second, rounded down: a life is never said to have begun before it did.
    alive_since = seconds(status.phase_since) + 1
    if proven_at <= alive_since:
        return None
    return _lease(replica, alive_since, proven_at)


def is_over(status: ReplicaStatus) -> bool:
    """Whether a life that was proven goes on no more, under this uid."""
    tries_again = status.phase is Phase.STOPPING and not status.drained_by and not status.failure
    return status.phase not in _ALIVE and not tries_again


def last_proof(last: Lease, replica: Replica | None) -> Lease:
    """Return the end of a lease: when it was seen alive last."""
    proven_at = last.published_at
    if replica is not None and last.path == "bare":
        served = _last_served(replica.status)
        if served is not None and served[0] <= last.alive_since:
            # Its kubelet was heard from when it was stopped: what was held back is proven now. A
            # life that began later is another, of which this lease proves nothing.
            proven_at = max(proven_at, served[1])
    interrupted = replica is not None and _was_interrupted(replica.status)
    return msgspec.structs.replace(
        last, published_at=proven_at, ended=True, interrupted=interrupted
    )


def short_life(replica: Replica) -> Lease | None:
    """Return a bare life that was over before its kubelet could be believed; None: there is none.

    Without it, whoever stops and starts often enough would never pay.
    """
    status = replica.status
    if replica.spec.path != "bare" or not is_over(status) or status.serving_since is None:
        return None
    served, alive_since = _last_served(status), seconds(status.serving_since) + 1
    lives = [stage.phase for stage in status.stages].count(Phase.SERVING)
    if served is None or lives != 1 or served[1] <= alive_since:
        return None
    return msgspec.structs.replace(
        _lease(replica, alive_since, served[1]),
        ended=True,
        interrupted=_was_interrupted(status),
    )


def _was_interrupted(status: ReplicaStatus) -> bool:
    """Whether its machine was taken away after a notice, by the words of its own end."""
    if status.failure is not None:
        return status.failure.reason == Reason.PREEMPTED
    ready = (it for it in status.conditions if it.type == ConditionType.READY)
    return any(it.reason == Reason.PREEMPTED for it in ready)


def _last_served(status: ReplicaStatus) -> tuple[float, float] | None:
    """Return from when until when it served last, if its end was wanted; None: it was lost."""
    if status.failure is not None or status.drained_by == GONE or status.phase_since is None:
        return None
    names = [*(stage.phase for stage in status.stages), status.phase]
    if Phase.SERVING not in names:
        return None
    last_served = len(names) - 1 - names[::-1].index(Phase.SERVING)
    if names[last_served + 1 : last_served + 2] != [Phase.DRAINING]:
        return None  # it broke by itself, some time before that was noticed
    later = sum(stage.seconds for stage in status.stages[last_served + 1 :])
    until = seconds(status.phase_since) - later
    return until - status.stages[last_served].seconds, until


def _lease(replica: Replica, alive_since: float, proven_at: float) -> Lease:
    spec = replica.spec
    return Lease(
        uid=replica.uid,
        replica=replica.name,
        deployment=f"{replica.namespace}/{spec.owner}",
        path=spec.path,
        tenant_id=spec.tenant,
        configuration=spec.configuration.id,
        gpus=spec.configuration.count,
        spot=spec.spot,
        alive_since=alive_since,
        published_at=proven_at,
    )


class Publisher:
    """Tells the store of replicas and leases whenever `runtime.telling` asks it to."""

    def __init__(
        self,
        store: Store,
        *,
        replicas: Callable[[], Iterable[Replica]],
        pods: Callable[[Replica], Sequence[Object]],
        engine: Callable[[str], EngineState | None],
        watched_at: Callable[[], float],
    ) -> None:
        """Prepare; the callables read caches and the monitor and must be quick."""
        self._store = store
        self._replicas = replicas
        self._pods = pods
        self._engine = engine
        self._watched_at = watched_at
        self._known: dict[str, Replica] = {}  # by uid, as they were when told last
        self._told: set[str] = set()  # uids that gateways were told of
        self._leases: dict[str, Lease] | None = None  # running ones; None: not read yet
        self._tellings = 0  # in a row that the store took
        self._over: set[str] = set()  # replicas whose end jobs were told of, if there was any

    def has_told_end(self, uid: str) -> bool:
        """Return whether jobs know of a replica's end, or that there is nothing to bill."""
        return uid in self._over

    def tell(self) -> bool:
        """Tell what is new, now and then everything; return whether the store took it."""
        tellings, self._tellings = self._tellings, 0  # after a failure everything is told
        is_up = self.publish(everything=tellings % REPEATED_EVERY == 0)
        if is_up:
            self._tellings = tellings + 1
        return is_up

    def publish(self, *, everything: bool = True) -> bool:
        """Tell what is new, or everything; return whether the store took it."""
        try:
            known = {it.uid: it for it in self._replicas()}
            # An object of a cache is another one once it has changed.
            new = {
                uid: it for uid, it in known.items() if everything or self._known.get(uid) is not it
            }
            gone = self._known.keys() - known.keys()
            self._tell_gateways(new, gone)
            self._tell_jobs(known, new, everything)
        except redis.RedisError:
            return False
        self._known = known
        return True

    def _tell_gateways(self, new: dict[str, Replica], gone: AbstractSet[str]) -> None:
        now = time.time()
        told = {uid: it for uid, at in new.items() if (it := routed(at, now)) is not None}
        replicas.TABLE.publish_all(self._store, told)
        withdrawn = self._told & (gone | (new.keys() - told.keys()))
        replicas.TABLE.withdraw(self._store, *sorted(withdrawn))
        self._told = (self._told | told.keys()) - withdrawn

    def _tell_jobs(
        self, known: dict[str, Replica], new: dict[str, Replica], everything: bool
    ) -> None:
        if self._leases is None:
            self._leases = self._read_leases()
        watched_at = self._watched_at()
        said: dict[str, Lease] = {}
        for uid, replica in new.items():
            if replica.spec.path == "serverless" or replica.status.phase is not Phase.SERVING:
                continue
            pods = self._pods(replica)
            found = proof(replica, pods, self._engine(uid), watched_at=watched_at)
            if found is not None:
                said[uid] = found
        running = self._leases | said
        if everything:
            said = dict(running)
        for uid in running.keys() - known.keys() | (running.keys() & new.keys()):
            replica_now = known.get(uid)
            if replica_now is None or is_over(replica_now.status):
                said[uid] = last_proof(running.pop(uid), replica_now)
        over = {uid for uid, it in new.items() if is_over(it.status)}
        short = {uid: short_life(new[uid]) for uid in over - self._over - said.keys()}
        said |= {uid: it for uid, it in short.items() if it is not None}
        leases.TABLE.publish_all(self._store, said)
        # Only now: an end that was not heard is said again.
        self._leases, self._over = running, (self._over | over) & known.keys()

    def _read_leases(self) -> dict[str, Lease]:
        """Go on with what an earlier operator told; forget what is long over."""
        now = time.time()
        found = leases.TABLE.read(self._store, now, stale_seconds=float("inf"))
        over = [it.uid for it in found if it.ended and now - it.published_at > ENDED_SECONDS]
        leases.TABLE.withdraw(self._store, *over)
        return {it.uid: it for it in found if not it.ended}
