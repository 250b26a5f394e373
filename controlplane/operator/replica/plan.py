"""What a replica needs now, as a pure function of what is seen. Called by `controller`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.cluster import Object
from controlplane.crd.replica import Placement, Replica
from controlplane.operator.actions import Plan
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.health.table import XID_ACTIONS, Action
from controlplane.operator.replica.workload import Workload
from controlplane.operator.signals import Signals


@dataclass(frozen=True)
class Observed:
    """Everything a plan for one replica rests on.

    Attributes:
        replica: the object as last seen or written.
        workload: what runs in it.
        pods: every pod with its label in its namespace, scrub pods among them.
        nodes: the nodes of its placements that exist, by name.
        offer: GPUs set aside for it meanwhile, while it waits for some; empty: none are free.
        signals: of gateways, engines, providers and drivers.
        owner_exists: whether its deployment or endpoint is there.
        namespace_terminating: whether its namespace is being deleted.
        refused: the API server's last refusal of its writes; empty: it refused nothing.
        xid_actions: what each GPU error asks for.
    """

    replica: Replica
    workload: Workload
    pods: tuple[Object, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    offer: tuple[Placement, ...] = ()
    signals: Signals = field(default_factory=Signals)
    owner_exists: bool = True
    namespace_terminating: bool = False
    refused: str = ""
    xid_actions: Mapping[int, Action] = field(default_factory=lambda: XID_ACTIONS)


def plan(observed: Observed, now: float) -> Plan:
    """Return the next steps: the status is written first, then what follows from it is done."""
    raise NotImplementedError
