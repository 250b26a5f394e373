"""Where GPUs are set aside: one domain, the zone with fewest siblings, the fullest node first."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.crd.replica import Placement
from controlplane.operator.capacity.demand import Demand
from controlplane.operator.capacity.nodes import Node

ZONE_LABEL = "topology.kubernetes.io/zone"
RACK_LABEL = "topology.kubernetes.io/rack"
DOMAIN_LABEL = "nvidia.com/gpu.clique"  # set by NVIDIA's feature discovery: one NVLink fabric


@dataclass(frozen=True)
class Machine:
    """A node and what is on it.

    Attributes:
        free: quantities by resource that nobody has.
        tenants: by tenant, whether one of its replicas there must be alone.
        foreign: whether pods that are not ours have GPUs of it.
        owners: how many replicas of each owner are on it.
    """

    node: Node
    free: Mapping[str, float]
    tenants: Mapping[str, bool] = field(default_factory=dict)
    foreign: bool = False
    owners: Mapping[str, int] = field(default_factory=dict)


def place(demand: Demand, machines: Iterable[Machine]) -> tuple[Placement, ...]:
    """Return nodes for the whole of `demand`; empty when there are not enough."""
    siblings: defaultdict[str, int] = defaultdict(int)
    able = []
    for machine in machines:
        if machine.owners and demand.owner in machine.owners:
            siblings[_zone(machine)] += machine.owners[demand.owner]
        if _fits(demand, machine):
            able.append(machine)
    chosen = _alone(demand, able, siblings) if demand.nodes == 1 else _gang(demand, able, siblings)
    return tuple(Placement(node=it.node.name, gpus=demand.gpus_per_node) for it in chosen)


def _alone(
    demand: Demand, able: Sequence[Machine], siblings: Mapping[str, int]
) -> Sequence[Machine]:
    def rank(machine: Machine) -> tuple[int, float, str]:
        here = siblings.get(_zone(machine), 0)
        return here, machine.free[demand.resource], machine.node.name

    return [min(able, key=rank)] if able else ()


def _gang(
    demand: Demand, able: Sequence[Machine], siblings: Mapping[str, int]
) -> Sequence[Machine]:
    def rank(chosen: Sequence[Machine]) -> tuple[int, int, float, str]:
        here = siblings.get(_zone(chosen[0]), 0)
        racks = len({_rack(machine) for machine in chosen})
        free = sum(machine.free[demand.resource] for machine in chosen)
        return here, racks, free, chosen[0].node.name

    packed = [chosen for group in _groups(demand, able) if (chosen := _pack(demand, group))]
    return min(packed, key=rank, default=())


def _fits(demand: Demand, machine: Machine) -> bool:
    free = machine.free
    if free.get(demand.resource, 0.0) < demand.needs[demand.resource]:
        return False
    for name, need in demand.needs.items():
        # A machine that does not count its cores or memory does not limit them.
        if name in machine.node.allocatable and free[name] < need:
            return False
    return demand.admits(machine.node) and _isolated(demand, machine)


def _isolated(demand: Demand, machine: Machine) -> bool:
    if not machine.tenants and not machine.foreign:
        return True
    others = {tenant: alone for tenant, alone in machine.tenants.items() if tenant != demand.tenant}
    if demand.alone:
        return not others and not machine.foreign
    return not any(others.values())


def _groups(demand: Demand, able: Sequence[Machine]) -> Iterable[Sequence[Machine]]:
    """Yield the sets of machines among which one replica may be divided."""
    groups: defaultdict[tuple[str, str], list[Machine]] = defaultdict(list)
    for machine in able:
        domain = machine.node.labels.get(DOMAIN_LABEL, "")
        if domain or not demand.one_domain:
            groups[_zone(machine), domain if demand.one_domain else ""].append(machine)
    return groups.values()


def _pack(demand: Demand, group: Sequence[Machine]) -> Sequence[Machine]:
    """Return as many machines as asked for, of as few racks as possible, the fullest first."""
    racks: defaultdict[str, list[Machine]] = defaultdict(list)
    for machine in sorted(group, key=lambda it: (it.free[demand.resource], it.node.name)):
        racks[_rack(machine)].append(machine)
    within = [rack for rack in racks.values() if len(rack) >= demand.nodes]
    if within:
        # The rack with the fewest to spare, so that whole racks stay whole.
        return min(within, key=lambda rack: (len(rack), rack[0].node.name))[: demand.nodes]
    largest_first = sorted(racks.values(), key=lambda rack: (-len(rack), rack[0].node.name))
    chosen = [machine for rack in largest_first for machine in rack][: demand.nodes]
    return chosen if len(chosen) == demand.nodes else ()


def _zone(machine: Machine) -> str:
    return machine.node.labels.get(ZONE_LABEL, "")


def _rack(machine: Machine) -> str:
    return machine.node.labels.get(RACK_LABEL, "")
