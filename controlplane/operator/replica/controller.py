"""From caches to a replica's plan: `reconcile` for its `Controller`, and who asks for rounds.

Keys are replicas' namespace and name, and `("", node)` for nodes. Wired by `main`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.cluster import Object
from controlplane.crd.base import REPLICA_LABEL
from controlplane.crd.replica import Phase, Placement, Replica
from controlplane.operator.actions import ApplyStatus, Plan
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.capacity.stock import Stock
from controlplane.operator.engines.profile import ENGINES
from controlplane.operator.health.board import Board
from controlplane.operator.health.table import XID_ACTIONS, Action
from controlplane.operator.health.verdict import plan_node
from controlplane.operator.replica.asking import Target
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.plan import plan, plan_orphans
from controlplane.operator.replica.pods import address, node_of, started_at
from controlplane.operator.replica.steps import ENGINE_PORT
from controlplane.operator.replica.workload import Workload
from controlplane.operator.runtime.queue import WorkQueue
from controlplane.operator.signals import Signals
from controlplane.watching.cache import Broken, Cache, Change, Key

# Names of indexes that the caches are made with.
BY_REPLICA = "replica"  # pods
BY_PHASE = "phase"  # replicas
# Waiting replicas that are looked at when GPUs come free; the others look by themselves soon.
WOKEN_AT_ONCE = 64

_ASKED_EVERY_SECONDS: Mapping[Phase, float] = {
    Phase.PROBING: 0.5,
    Phase.SERVING: 2.0,
    Phase.DEGRADED: 1.0,
    Phase.DRAINING: 0.5,
}


def replica_of_pod(pod: Object) -> str | None:
    """Index BY_REPLICA: `<namespace>/<replica>` of a pod of ours."""
    label = pod["metadata"].get("labels", {}).get(REPLICA_LABEL)
    return None if label is None else f"{pod['metadata']['namespace']}/{label}"


def phase_of_replica(body: Object) -> str | None:
    """Index BY_PHASE."""
    return str(body.get("status", {}).get("phase", Phase.PENDING))


@dataclass
class Caches:
    """What a replica's rounds read; pods, nodes and namespaces of everybody."""

    replicas: Cache[Replica]
    pods: Cache[Object]
    nodes: Cache[Node]
    namespaces: Cache[Object]
    owners: Mapping[str, Cache[Any]]  # by kind
    events: Cache[Object] | None = None  # of nodes, where they are watched


@dataclass
class ReplicaRounds:
    """The rounds of replicas and nodes.

    Attributes:
        stock: kept up here from the caches; others may ask it what is left.
        board: kept up here from the caches, for the monitor.
        signals: of the monitor.
        workloads: by path.
        end_told: whether jobs know of the end of the billed replica with this uid.
        xid_actions: the table in force.
    """

    caches: Caches
    stock: Stock
    board: Board
    signals: Callable[[], Signals]
    workloads: Mapping[str, Workload]
    queue: WorkQueue
    end_told: Callable[[str], bool] = lambda uid: True
    xid_actions: Callable[[], Mapping[int, Action]] = lambda: XID_ACTIONS
    clock: Callable[[], float] = time.time
    _targets: dict[Key, Target] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def subscribe(self) -> None:
        """Keep stock and board true, and ask for rounds when something changes."""
        self.caches.nodes.subscribe(self._node_changed)
        self.caches.pods.subscribe(self._pod_changed)
        self.caches.replicas.subscribe(self._replica_changed)
        self.caches.namespaces.subscribe(self._namespace_changed)
        for cache in self.caches.owners.values():
            cache.subscribe(self._owner_changed)
        if self.caches.events is not None:
            self.caches.events.subscribe(self._event_came)

    def reconcile(self, key: Key) -> Plan:
        """Return the plan of a replica, a node, or of pods that a replica left behind."""
        namespace, name = key
        if not namespace:
            return self._plan_node(name)
        replica = self.caches.replicas.get(namespace, name)
        pods = tuple(self.caches.pods.by(BY_REPLICA, f"{namespace}/{name}"))
        if replica is None:
            return plan_orphans(pods)
        if isinstance(replica, Broken):
            return Plan()  # a metric tells; what it has stays as it is
        offer = self._offer(replica)
        made = plan(self._observed(replica, pods, offer), self.clock())
        if offer and not _reserves(made):
            self.stock.withdraw(key)
        return made

    def targets(self) -> Iterable[Target]:
        """Return the engines to ask."""
        with self._lock:
            return list(self._targets.values())

    def pods_of(self, replica: Replica) -> Sequence[Object]:
        """Return a replica's pods."""
        return self.caches.pods.by(BY_REPLICA, replica.key)

    def routed(self) -> Iterable[Replica]:
        """Return every replica that can be alive, for the publisher."""
        return self.caches.replicas.list()

    def _observed(
        self, replica: Replica, pods: tuple[Object, ...], offer: tuple[Placement, ...]
    ) -> Observed:
        owners = self.caches.owners[replica.spec.owner_kind]
        namespace = self.caches.namespaces.get("", replica.namespace)
        places = [it.node for it in (*replica.status.placements, *offer)]
        names = {*places, *(node_of(pod) for pod in pods)}
        nodes = {name: self.caches.nodes.get("", name) for name in names}
        return Observed(
            replica=replica,
            workload=self.workloads[replica.spec.path],
            all_pods=pods,
            nodes={name: node for name, node in nodes.items() if isinstance(node, Node)},
            offer=offer,
            signals=self.signals(),
            owner_exists=owners.get(replica.namespace, replica.spec.owner) is not None,
            namespace_terminating=isinstance(namespace, dict)
            and "deletionTimestamp" in namespace["metadata"],
            refused=self.queue.last_error((replica.namespace, replica.name)),
            end_told=replica.spec.path == "serverless" or self.end_told(replica.uid),
            xid_actions=self.xid_actions(),
        )

    def _offer(self, replica: Replica) -> tuple[Placement, ...]:
        if replica.status.phase is not Phase.PENDING or replica.deleting:
            return ()
        return self.stock.offer(replica)

    def _plan_node(self, name: str) -> Plan:
        node = self.caches.nodes.get("", name)
        if not isinstance(node, Node):
            return Plan()
        errors = self.board.errors().get(name, ())
        return plan_node(node, errors, self.xid_actions(), self.clock())

    def _aim(self, key: Key) -> None:
        """Keep true whom the monitor asks; reckoned here since it looks twice a second."""
        with self._lock:  # held over the reading, so that the newest is what stays
            replica = self.caches.replicas.get(*key)
            if isinstance(replica, Broken):
                return
            target = None if replica is None else self._target(replica)
            if target is None:
                self._targets.pop(key, None)
            else:
                self._targets[key] = target

    def _target(self, replica: Replica) -> Target | None:
        engine, every_seconds = replica.spec.engine, _ASKED_EVERY_SECONDS.get(replica.status.phase)
        if engine is None or every_seconds is None:
            return None
        pods = self.pods_of(replica)
        start = started_at(pods)
        if start is None:
            return None
        return Target(
            uid=replica.uid,
            key=(replica.namespace, replica.name),
            url=f"http://{address(pods)}:{ENGINE_PORT}",
            model=replica.spec.model,
            profile=ENGINES[engine.name],
            started_at=start,
            every_seconds=every_seconds,
        )

    # Who asks for rounds.

    def _node_changed(self, change: Change) -> None:
        name = change.key[1]
        node = self.caches.nodes.get("", name)
        if isinstance(node, Broken):
            return  # what it was before is the best guess
        if not self.stock.set_node(name, node):
            return  # kubelets repeat themselves every few minutes
        self.board.set_node(name, node)
        self._node_told(name)
        self._wake_waiting()

    def _node_told(self, name: str) -> None:
        if self.board.errors().get(name):
            self.queue.add(("", name), urgent=True)
        for key in self.stock.on_node(name):
            self.queue.add(key, urgent=True)

    def _event_came(self, change: Change) -> None:
        node = None if change.new is None else self.board.take_event(change.new)
        if node is not None:
            self._node_told(node)

    def _pod_changed(self, change: Change) -> None:
        self.stock.set_pod(change.key, change.new)
        owner = replica_of_pod(change.body)
        if owner is not None:
            namespace, _, name = owner.partition("/")
            self._aim((namespace, name))
            # Whoever loses one that served is told before others are brought further.
            replica = self.caches.replicas.get(namespace, name)
            served = isinstance(replica, Replica) and replica.status.phase is Phase.SERVING
            self.queue.add((namespace, name), urgent=served)
        elif change.new is None:
            self._wake_waiting()

    def _replica_changed(self, change: Change) -> None:
        replica = self.caches.replicas.get(*change.key)
        if isinstance(replica, Broken):
            return
        self.stock.set_replica(change.key, replica)
        self._aim(change.key)
        self.queue.add(change.key, urgent=change.asked)
        had = change.old is not None and change.old.get("status", {}).get("placements")
        if had and (replica is None or not replica.status.placements):
            self._wake_waiting()

    def _namespace_changed(self, change: Change) -> None:
        self._ask_all(self.caches.replicas.list(change.key[1]))

    def _owner_changed(self, change: Change) -> None:
        if change.new is None:
            namespace, name = change.key
            owned = [it for it in self.caches.replicas.list(namespace) if it.spec.owner == name]
            self._ask_all(owned)

    def _wake_waiting(self) -> None:
        self._ask_all(self.caches.replicas.by(BY_PHASE, Phase.PENDING)[:WOKEN_AT_ONCE])

    def _ask_all(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            self.queue.add((replica.namespace, replica.name))


def _reserves(made: Plan) -> bool:
    return any(
        isinstance(action, ApplyStatus) and action.body["status"].get("placements")
        for action in made.actions
    )
