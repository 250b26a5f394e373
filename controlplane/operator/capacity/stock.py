"""What is free on every node, kept up as caches change, and offers that no two replicas share.

Called by the caches' handlers, by `replica.controller` for offers and by deployments for what a
configuration has left. An offer counts as taken until its replica's written reservation is seen,
or the replica asks again or is gone: two keys planned at the same time never get the same GPU.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controlplane.cluster import Object
from controlplane.crd.base import REPLICA_LABEL
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.replica import Placement, Replica
from controlplane.operator.capacity.demand import Demand, demand_of, needs_of
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.capacity.placement import Machine, place
from controlplane.operator.capacity.quantities import quantity

Key = tuple[str, str]
_OVER = ("Succeeded", "Failed")


@dataclass(frozen=True)
class _Pod:
    node: str
    replica: Key | None
    requests: Mapping[str, float]


class Stock:
    """Nodes minus reservations minus foreign pods. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, Node] = {}
        self._pods: dict[Key, _Pod] = {}
        self._pods_on: defaultdict[str, set[Key]] = defaultdict(set)
        self._replicas: dict[Key, Replica] = {}
        self._held: dict[Key, tuple[Replica, tuple[Placement, ...]]] = {}
        self._reserved_on: defaultdict[str, set[Key]] = defaultdict(set)
        self._machines: dict[str, Machine] = {}  # computed when asked for

    def set_node(self, name: str, node: Node | None) -> bool:
        """Take a node's newest state, None: it is gone; return whether it is another one."""
        with self._lock:
            if self._nodes.get(name) == node:
                return False
            self._machines.pop(name, None)
            if node is None:
                self._nodes.pop(name, None)
            else:
                self._nodes[name] = node
            return True

    def set_pod(self, key: Key, body: Object | None) -> None:
        """Take a pod's newest state, anybody's; None: it is gone."""
        pod = None if body is None else _pod(body)
        with self._lock:
            before = self._pods.pop(key, None)
            if before is not None:
                self._pods_on[before.node].discard(key)
                self._machines.pop(before.node, None)
            if pod is not None:
                self._pods[key] = pod
                self._pods_on[pod.node].add(key)
                self._machines.pop(pod.node, None)

    def set_replica(self, key: Key, replica: Replica | None) -> None:
        """Take a replica's newest state; None: it is gone."""
        with self._lock:
            self._forget(key)
            if replica is not None and replica.status.placements:
                self._held.pop(key, None)
                self._replicas[key] = replica
                self._mark(key, replica.status.placements)
            elif replica is None:
                self._held.pop(key, None)
            if key in self._held:
                self._mark(key, self._held[key][1])

    def offer(self, replica: Replica) -> tuple[Placement, ...]:
        """Hold GPUs for a replica that waits and return them; empty: there are not enough.

        Raises:
            ValueError: its configuration has an unreadable quantity.
        """
        key = (replica.namespace, replica.name)
        demand = demand_of(replica.namespace, replica.spec)
        with self._lock:
            self._release(key)
            if key in self._replicas:
                return ()  # it has some: the caller looked at an older state
            placements = place(demand, self._all())
            if placements:
                self._held[key] = (replica, placements)
                self._mark(key, placements)
            return placements

    def on_node(self, name: str) -> set[Key]:
        """Return the replicas that have GPUs of a node, offers included."""
        with self._lock:
            return set(self._reserved_on[name])

    def withdraw(self, key: Key) -> None:
        """Take an offer back that was not used."""
        with self._lock:
            self._release(key)

    def room(self, configuration: GPUConfiguration, *, spot: bool, limit: int = 1000) -> int:
        """Return how many more replicas of a configuration would be placed now, at most `limit`."""
        demand = Demand(
            owner="",
            tenant="",
            alone=False,
            spot=spot,
            nodes=configuration.nodes,
            one_domain=configuration.nodes > 1 and configuration.nvlink,
            resource=configuration.resource,
            needs=needs_of(configuration),
            selector=configuration.node_selector,
        )
        with self._lock:
            machines = {name: machine for name in self._nodes if (machine := self._machine(name))}
        found = 0
        while found < limit and (placed := place(demand, machines.values())):
            found += 1
            for placement in placed:
                machine = machines[placement.node]
                free = {
                    name: amount - demand.needs.get(name, 0.0)
                    for name, amount in machine.free.items()
                }
                machines[placement.node] = replace(machine, free=free)
        return found

    def _release(self, key: Key) -> None:
        if key in self._held:
            for placement in self._held.pop(key)[1]:
                self._reserved_on[placement.node].discard(key)
                self._machines.pop(placement.node, None)

    def _forget(self, key: Key) -> None:
        before = self._replicas.pop(key, None)
        held = self._held.get(key)
        old = [*(before.status.placements if before else ()), *(held[1] if held else ())]
        for placement in old:
            self._reserved_on[placement.node].discard(key)
            self._machines.pop(placement.node, None)

    def _mark(self, key: Key, placements: tuple[Placement, ...] | list[Placement]) -> None:
        for placement in placements:
            self._reserved_on[placement.node].add(key)
            self._machines.pop(placement.node, None)

    def _all(self) -> list[Machine]:
        return [self._machine(name) for name in self._nodes]

    def _machine(self, name: str) -> Machine:
        known = self._machines.get(name)
        if known is None:
            known = self._machines[name] = self._compute(self._nodes[name])
        return known

    def _compute(self, node: Node) -> Machine:
        free = dict(node.allocatable)
        tenants: dict[str, bool] = {}
        owners: defaultdict[str, int] = defaultdict(int)
        reserved = self._reserved_on[node.name]
        for key in reserved:
            replica = self._replicas[key] if key in self._replicas else self._held[key][0]
            _take(free, needs_of(replica.spec.configuration))
            alone = replica.spec.isolation.node == "dedicated"
            tenants[replica.spec.tenant] = tenants.get(replica.spec.tenant, False) or alone
            owners[f"{replica.namespace}/{replica.spec.owner}"] += 1
        foreign = False
        for pod in (self._pods[key] for key in self._pods_on[node.name]):
            if pod.replica in reserved:
                continue  # that is what the reservation is for
            _take(free, pod.requests)
            foreign = foreign or any("/" in name for name in pod.requests)
        return Machine(node, free, tenants, foreign, owners)


def _take(free: dict[str, float], amounts: Mapping[str, float]) -> None:
    for name, amount in amounts.items():
        free[name] = free.get(name, 0.0) - amount


def _pod(body: Object) -> _Pod | None:
    """Return what a pod has; None while it has no node, or when it is over."""
    metadata, spec = body["metadata"], body.get("spec", {})
    node = spec.get("nodeName", "")
    if not node or body.get("status", {}).get("phase") in _OVER:
        return None
    label = metadata.get("labels", {}).get(REPLICA_LABEL)
    owner = (metadata.get("namespace", ""), label) if label else None
    requests: defaultdict[str, float] = defaultdict(float)
    for container in spec.get("containers", ()):
        for name, amount in _requests(container).items():
            requests[name] += amount
    for container in spec.get("initContainers", ()):
        for name, amount in _requests(container).items():
            requests[name] = max(requests[name], amount)
    return _Pod(node, owner, dict(requests))


def _requests(container: Object) -> dict[str, float]:
    resources = container.get("resources", {})
    amounts = {**resources.get("limits", {}), **resources.get("requests", {})}
    return {name: quantity(amount) for name, amount in amounts.items()}
