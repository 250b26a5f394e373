"""From caches to a deployment's plan: `reconcile` for its `Controller`, and who asks for rounds.

It also keeps what plans remember of each deployment's load, and tells the pools for the publisher.
Wired by `main`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.cluster import Object
from controlplane.crd.base import OWNER_LABEL, SUSPENDED_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Replica
from controlplane.operator.actions import Apply, Plan
from controlplane.operator.capacity.stock import Stock
from controlplane.operator.deployment.broken import plan_broken
from controlplane.operator.deployment.fleet import measured_start_seconds
from controlplane.operator.deployment.history import History
from controlplane.operator.deployment.observed import START_SECONDS, Observed
from controlplane.operator.deployment.plan import plan
from controlplane.operator.deployment.pools import pool_record
from controlplane.operator.deployment.scaling import remember
from controlplane.operator.deployment.verdict import verdicts
from controlplane.operator.runtime.queue import WorkQueue
from controlplane.operator.signals import Signals
from controlplane.operator.tenants.reading import Namespaces
from controlplane.registry.pools import Pool
from controlplane.watching.cache import Broken, Cache, Change, Key

BY_OWNER = "owner"  # index of replicas


def owner_of_replica(body: Object) -> str | None:
    """Index BY_OWNER: `<namespace>/<owner>` of a replica, whatever its owner's kind."""
    owner = body["metadata"].get("labels", {}).get(OWNER_LABEL)
    return None if owner is None else f"{body['metadata']['namespace']}/{owner}"


@dataclass
class Caches:
    """What a deployment's rounds read; `replicas` has the index BY_OWNER."""

    deployments: Cache[InferenceDeployment]
    replicas: Cache[Replica]
    namespaces: Cache[Object]


class Memory(NamedTuple):
    """What is remembered of a deployment between rounds."""

    history: History
    start_seconds: float | None  # the newest cold start that was measured
    max_model_len: int
    expected_start_seconds: float


@dataclass
class DeploymentRounds:
    """The rounds of deployments.

    Attributes:
        stock: what nodes have left, kept up by the replicas' controller.
        signals: of the replicas' monitor.
        catalogue: every GPU configuration, by id.
        queue: the controller's.
    """

    caches: Caches
    stock: Stock
    signals: Callable[[], Signals]
    catalogue: Callable[[], Mapping[str, GPUConfiguration]]
    namespaces: Namespaces
    queue: WorkQueue
    clock: Callable[[], float] = time.time
    _memories: dict[Key, Memory] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def subscribe(self) -> None:
        """Ask for rounds when something changes."""
        self.caches.deployments.subscribe(
            lambda change: self.queue.add(change.key, urgent=change.asked)
        )
        self.caches.replicas.subscribe(self._replica_changed)
        self.caches.namespaces.subscribe(self._namespace_changed)

    def ask_all(self) -> None:
        """Ask for a round of every deployment: the catalogue has changed."""
        for deployment in self.caches.deployments.list():
            self.queue.add((deployment.namespace, deployment.name))

    def reconcile(self, key: Key) -> Plan:
        """Return a deployment's plan; one that is gone is forgotten.

        Raises:
            ClusterError: what is in its namespace cannot be read.
        """
        deployment = self.caches.deployments.get(*key)
        if deployment is None:
            with self._lock:
                self._memories.pop(key, None)
            return Plan()
        replicas = self._replicas(key)
        if isinstance(deployment, Broken):
            unreadable = bool(self.caches.replicas.broken_by(BY_OWNER, "/".join(key)))
            if unreadable and "deletionTimestamp" in deployment.body["metadata"]:
                return Plan()  # what cannot be read may hold GPUs
            return plan_broken(deployment.body, deployment.error, replicas, self.clock())
        now = self.clock()
        observed = remember(self._observed(deployment, replicas, now), now)
        self._remember(key, observed)
        made = plan(observed, now)
        if any(isinstance(it, Apply) for it in made.actions):
            self.namespaces.forget(deployment.namespace)
        return made

    def records(self) -> dict[str, Pool]:
        """Return what gateways are told, by pool name; for `pools.PoolPublisher`."""
        now = self.clock()
        told = {}
        for deployment in self.caches.deployments.list():
            key = (deployment.namespace, deployment.name)
            with self._lock:
                memory = self._memories.get(key)
            if not deployment.status.endpoint:
                continue  # it has not been looked at yet
            told[deployment.key] = pool_record(
                deployment,
                self._replicas(key),
                now,
                suspended=self._is_suspended(deployment.namespace),
                start_seconds=memory.expected_start_seconds if memory else START_SECONDS,
                max_model_len=memory.max_model_len if memory else 0,
            )
        return told

    def _is_suspended(self, namespace: str) -> bool:
        body = self.caches.namespaces.body("", namespace)
        return body is not None and SUSPENDED_LABEL in body["metadata"].get("labels", {})

    def _observed(
        self, deployment: InferenceDeployment, replicas: tuple[Replica, ...], now: float
    ) -> Observed:
        key = (deployment.namespace, deployment.name)
        with self._lock:
            memory = self._memories.get(key)
        catalogue = self.catalogue()
        measured = measured_start_seconds(replicas)
        return Observed(
            deployment=deployment,
            history=memory.history if memory else History(since=now),
            replicas=replicas,
            taken_slots=frozenset(self._taken_slots(deployment, replicas)),
            catalogue=catalogue,
            verdicts=verdicts(deployment.spec, catalogue),
            stock=_Left(self.stock, catalogue),
            namespace=self.namespaces.facts(deployment.namespace),
            signals=self.signals(),
            start_seconds=measured or (memory.start_seconds if memory else None),
            refused=self.queue.last_error(key),
        )

    def _remember(self, key: Key, observed: Observed) -> None:
        lengths = (observed.verdicts[it.id].max_model_len for it in observed.usable)
        memory = Memory(
            observed.history,
            observed.start_seconds,
            next(lengths, 0),
            observed.cold_start_seconds,
        )
        with self._lock:
            self._memories[key] = memory

    def _replicas(self, key: Key) -> tuple[Replica, ...]:
        found = self.caches.replicas.by(BY_OWNER, "/".join(key))
        own = [it for it in found if it.spec.owner_kind == "InferenceDeployment"]
        return tuple(sorted(own, key=lambda it: it.spec.slot))

    def _taken_slots(
        self, deployment: InferenceDeployment, replicas: tuple[Replica, ...]
    ) -> Iterator[int]:
        """Yield the slots of replicas that cannot be read, or are an endpoint's of this name."""
        own = {it.name for it in replicas}
        found = [it.name for it in self.caches.replicas.by(BY_OWNER, deployment.key)]
        for broken in self.caches.replicas.broken_by(BY_OWNER, deployment.key):
            found.append(broken.body["metadata"]["name"])
        for name in found:
            slot = name.removeprefix(f"{deployment.name}-")
            if name not in own and slot.isdecimal():
                yield int(slot)

    # Who asks for rounds.

    def _replica_changed(self, change: Change) -> None:
        owner = owner_of_replica(change.body)
        if owner is not None:
            namespace, _, name = owner.partition("/")
            self.queue.add((namespace, name))

    def _namespace_changed(self, change: Change) -> None:
        name = change.key[1]
        self.namespaces.forget(name)
        for deployment in self.caches.deployments.list(name):
            self.queue.add((name, deployment.name))


class _Left(Mapping[str, int]):
    """What nodes have left of each configuration, reckoned when it is asked for."""

    def __init__(self, stock: Stock, catalogue: Mapping[str, GPUConfiguration]) -> None:
        self._stock = stock
        self._catalogue = catalogue

    def __getitem__(self, name: str) -> int:
        configuration = self._catalogue[name]
        return self._stock.room(configuration, spot=configuration.spot, limit=8)

    def __iter__(self) -> Iterator[str]:
        return iter(self._catalogue)

    def __len__(self) -> int:
        return len(self._catalogue)
