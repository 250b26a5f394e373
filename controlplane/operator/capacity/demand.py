"""What a replica asks of nodes, from its spec."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.cluster import Object
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.replica import ReplicaSpec
from controlplane.operator.capacity.nodes import TENANT_TAINT, TOLERATED_TAINTS, Node, Taint
from controlplane.operator.capacity.quantities import quantity


@dataclass(frozen=True)
class Demand:
    """All or nothing: `needs` on each of `nodes` different nodes.

    Attributes:
        owner: `<namespace>/<name>` of the deployment; its replicas are spread over zones.
        tenant: whose it is; empty: the platform's.
        alone: no other tenant's replica may be on its nodes.
        one_domain: its nodes must be of one NVLink domain.
        needs: quantities by resource on each node.
    """

    owner: str
    tenant: str
    alone: bool
    spot: bool
    nodes: int
    one_domain: bool
    resource: str
    needs: Mapping[str, float]
    selector: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpus_per_node(self) -> int:
        """GPUs, or whatever the configuration counts, on each node."""
        return int(self.needs[self.resource])

    def admits(self, node: Node) -> bool:
        """Whether a node may have it at all, whatever is free there."""
        return (
            node.usable
            and node.spot == self.spot
            and all(node.labels.get(key) == value for key, value in self.selector.items())
            and all(self._tolerates(taint) for taint in node.taints)
        )

    def _tolerates(self, taint: Taint) -> bool:
        if taint.effect == "PreferNoSchedule" or taint.key in (*TOLERATED_TAINTS, self.resource):
            return True
        return taint.key == TENANT_TAINT and taint.value == self.tenant != ""


def demand_of(namespace: str, spec: ReplicaSpec) -> Demand:
    """Return what a replica in `namespace` asks for.

    Raises:
        ValueError: its cpu or memory is no quantity.
    """
    return Demand(
        owner=f"{namespace}/{spec.owner}",
        tenant=spec.tenant,
        alone=spec.isolation.node == "dedicated",
        spot=spec.spot,
        nodes=spec.configuration.nodes,
        one_domain=spec.configuration.nodes > 1 and spec.configuration.nvlink,
        resource=spec.configuration.resource,
        needs=needs_of(spec.configuration),
        selector=spec.configuration.node_selector,
    )


def needs_of(configuration: GPUConfiguration) -> Mapping[str, float]:
    """Return what a replica of `configuration` takes on each of its nodes."""
    return {
        configuration.resource: float(configuration.gpus_per_node),
        "cpu": quantity(configuration.cpu),
        "memory": quantity(configuration.memory),
    }


def tolerations(spec: ReplicaSpec) -> list[Object]:
    """Return the tolerations that let its pods onto every node that `admits` lets it have."""
    keys = sorted({*TOLERATED_TAINTS, spec.configuration.resource})
    tenant = {"key": TENANT_TAINT, "operator": "Equal", "value": spec.tenant}
    return [
        *({"key": key, "operator": "Exists"} for key in keys),
        *([tenant] if spec.tenant else ()),
    ]
