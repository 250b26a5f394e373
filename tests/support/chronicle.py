"""Everything that replicas and their pods have been while a test looked. Fed by watches."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.kube_server import KubeServer
from support.watching import reflectors

from controlplane.cluster import PODS, Object
from controlplane.crd.base import REPLICA_LABEL, REPLICAS
from controlplane.crd.replica import Replica


@dataclass
class Life:
    """One replica from its first word to its last. `at` is when a phase was first seen."""

    replica: Replica
    at: dict[str, float] = field(default_factory=dict)
    over: bool = False

    @property
    def phases(self) -> list[str]:
        return list(self.at)

    def seconds_in(self, phase: str) -> float:
        """Return how long it was first seen in a phase, up to the next; 0 without a next one."""
        later = [it for it in self.at.values() if it > self.at[phase]]
        return min(later, default=self.at[phase]) - self.at[phase]

    @property
    def drained_by(self) -> str:
        return self.replica.status.drained_by


class Chronicle:
    """The lives of all replicas, by uid, and which pods each had."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.overbooked: list[str] = []
        self._pods: defaultdict[str, set[str]] = defaultdict(set)
        self._room: dict[str, int] = {}
        self._lock = threading.Lock()

    def expect(self, node: str, gpus: int) -> None:
        """Say how many GPUs a node has; more of them reserved at once are a fault."""
        with self._lock:
            self._room[node] = gpus

    def of(self, namespace: str, owner: str) -> list[Life]:
        """Return the lives of an owner's replicas, the oldest first."""
        with self._lock:
            found = [
                it
                for it in self.lives.values()
                if (it.replica.namespace, it.replica.spec.owner) == (namespace, owner)
            ]
        return sorted(found, key=lambda it: it.replica.created_at)

    def pods_of(self, life: Life) -> int:
        """Return how many pods it had in its whole life."""
        return len(self._pods[life.replica.uid])

    def reserved(self) -> dict[str, int]:
        """Return the GPUs that are reserved now, by node."""
        with self._lock:
            return dict(self._reserved())

    def _reserved(self) -> Counter[str]:
        there = [it.replica for it in self.lives.values() if not it.over]
        return sum(
            (Counter({p.node: p.gpus}) for it in there for p in it.status.placements), Counter()
        )

    def take_replica(self, body: Object, *, gone: bool) -> None:
        replica = Replica.of(body)
        with self._lock:
            life = self.lives.setdefault(replica.uid, Life(replica))
            life.replica, life.over = replica, gone
            life.at.setdefault(str(replica.status.phase), time.time())
            for node, gpus in self._reserved().items():
                if gpus > self._room.get(node, gpus):
                    self.overbooked.append(f"{gpus} on {node} at {time.time()}")

    def take_pod(self, body: Object) -> None:
        metadata = body["metadata"]
        if REPLICA_LABEL in metadata.get("labels", {}):
            (owner,) = metadata["ownerReferences"]
            with self._lock:
                self._pods[owner["uid"]].add(metadata["uid"])


@contextmanager
def chronicle(server: KubeServer) -> Iterator[Chronicle]:
    """Write one while inside; it begins with what comes next."""
    written = Chronicle()
    with reflectors() as watch:
        replicas, _ = watch(server, REPLICAS, labels="")
        replicas.subscribe(lambda it: written.take_replica(it.body, gone=it.new is None))
        pods, _ = watch(server, PODS, labels="")
        pods.subscribe(lambda it: written.take_pod(it.body))
        yield written
