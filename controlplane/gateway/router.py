"""Which replica serves a request: the registry's last snapshot, requests in flight, ejections.

Called by `dispatch` for every attempt and by `catalog`; fed by `polling`. While the store is down
the last snapshot stays: replicas that died meanwhile are found by connecting to them.
"""

import time
from collections import Counter
from collections.abc import Collection, Sequence

from controlplane.errors import Unavailable
from controlplane.gateway.policies import Policy
from controlplane.registry.replicas import Replica

EJECTION_SECONDS = 2.0


class NoReplica(Unavailable):
    """Nobody serves the model now; that may change any moment."""

    default_code = "no_replica"


class Router:
    """Chooses replicas. All of it runs on the event loop's thread."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._replicas: Sequence[Replica] = ()
        self._inflight: Counter[str] = Counter()
        self._ejected_until: dict[str, float] = {}
        self._turn = 0
        self._context_windows: dict[tuple[str, str], int] = {}

    def update(self, replicas: Sequence[Replica]) -> None:
        """Take a new snapshot of the registry."""
        self._replicas = replicas
        known = {replica.id for replica in replicas}
        self._ejected_until = {
            replica_id: until
            for replica_id, until in self._ejected_until.items()
            if replica_id in known
        }
        for replica in replicas:
            served = self.serving(replica.model, replica.path)
            longest = max(other.max_model_len for other in served)
            self._context_windows[replica.model, replica.path] = longest

    def serving(self, model: str, path: str) -> list[Replica]:
        """Return the replicas that serve `model` on `path`, ejected ones included."""
        return [r for r in self._replicas if r.model == model and r.path == path]

    def max_model_len(self, model: str, path: str) -> int:
        """Return the longest context a replica of `model` serves, in tokens.

        Raises:
            NoReplica: no replica is ready.
        """
        replicas = self.serving(model, path)
        if not replicas:
            raise NoReplica(f"no replica of {model!r} is ready")
        return max(replica.max_model_len for replica in replicas)

    def context_window(self, model: str, path: str) -> int | None:
        """Return the longest context last seen served, in tokens; None if never seen."""
        return self._context_windows.get((model, path))

    def choose(self, model: str, path: str, tried: Collection[str] = ()) -> Replica:
        """Return a replica, if possible one neither tried nor ejected.

        Raises:
            NoReplica: no replica is ready.
        """
        replicas = self.serving(model, path)
        if not replicas:
            raise NoReplica(f"no replica of {model!r} is ready")
        now = time.monotonic()
        untried = [replica for replica in replicas if replica.id not in tried] or replicas
        # With every replica ejected, an ejected one is the best guess: it may be back already.
        sound = [r for r in untried if self._ejected_until.get(r.id, 0.0) <= now] or untried
        self._turn += 1
        return self._policy(sound, self._inflight, self._turn)

    def eject(self, replica: Replica) -> None:
        """Pass over a replica that could not be reached, for a moment."""
        self._ejected_until[replica.id] = time.monotonic() + EJECTION_SECONDS

    def enter(self, replica: Replica) -> None:
        """Count a request against a replica; every `enter` needs its `leave`."""
        self._inflight[replica.id] += 1

    def leave(self, replica: Replica) -> None:
        """Stop counting a request against a replica."""
        self._inflight[replica.id] -= 1
        assert self._inflight[replica.id] >= 0
        if not self._inflight[replica.id]:
            del self._inflight[replica.id]
