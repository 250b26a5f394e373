"""Where replicas go."""

from typing import Any

import pytest
from support.replica_world import node_body, replica_spec

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import Isolation
from controlplane.local.scheduling import node_for
from controlplane.operator.capacity.demand import demand_of, tolerations
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.capacity.placement import Machine, place


def machine(
    name: str, free: int = 8, labels: dict[str, str] | None = None, **words: Any
) -> Machine:
    body = node_body(name, labels=labels or {})
    body["spec"].update(words.pop("spec", {}))
    body["metadata"].update(words.pop("metadata", {}))
    amounts = {
        "nvidia.com/gpu": float(free),
        "cpu": 96.0,
        "memory": 2.0**40,
        **words.pop("has", {}),
    }
    return Machine(Node.of(body), amounts, **words)


def where(spec_changes: dict[str, Any], *machines: Machine) -> list[str]:
    demand = demand_of("tenant-a", replica_spec(**spec_changes))
    return [it.node for it in place(demand, machines)]


def configuration(**changes: Any) -> GPUConfiguration:
    fields: dict[str, Any] = {"id": "c", "gpu": "H200", "count": 4, "memory_gib": 140.0}
    return GPUConfiguration(**fields | changes)


def test_the_fullest_node_that_has_room_is_taken() -> None:
    assert where({}, machine("a", 8), machine("b", 4), machine("c", 3)) == ["b"]


def test_nothing_is_placed_where_cpu_or_memory_is_short() -> None:
    assert where({}, machine("a", has={"cpu": 2.0})) == []


@pytest.mark.parametrize(
    "spoiled",
    [
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}},
        {"metadata": {"annotations": {"flashplane.io/quarantined": "XID 79"}}},
        {"labels": {"karpenter.sh/capacity-type": "spot"}},
    ],
)
def test_unfit_nodes_are_passed_over(spoiled: dict[str, Any]) -> None:
    assert where({}, machine("a", **spoiled)) == []
    assert where({}, machine("a", **spoiled), machine("b")) == ["b"]


def test_a_node_about_to_be_taken_away_gets_nothing() -> None:
    taints = [{"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}]
    spot = {"karpenter.sh/capacity-type": "spot"}
    assert where({"spot": True}, machine("a", labels=spot, spec={"taints": taints})) == []
    assert where({"spot": True}, machine("a", labels=spot)) == ["a"]


def test_taints_of_gpu_nodes_are_tolerated() -> None:
    taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert where({}, machine("a", spec={"taints": taints})) == ["a"]


def test_a_node_kept_for_a_tenant_takes_only_that_tenants_replicas() -> None:
    taints = [{"key": "flashplane.io/tenant", "value": "acme", "effect": "NoSchedule"}]
    kept = machine("a", spec={"taints": taints})
    assert where({"tenant": "acme"}, kept) == ["a"]
    assert where({"tenant": "other"}, kept) == []


@pytest.mark.parametrize("tenant", ["acme", ""])
@pytest.mark.parametrize("value", ["acme", "other", ""])
@pytest.mark.parametrize("key", ["nvidia.com/gpu", "flashplane.io/tenant", "other.io/reserved"])
def test_pods_tolerate_what_placement_looks_past_and_no_more(
    key: str, value: str, tenant: str
) -> None:
    node = node_body("a")
    node["spec"]["taints"] = [{"key": key, "value": value, "effect": "NoSchedule"}]
    spec = replica_spec(tenant=tenant)
    admitted = demand_of("ns", spec).admits(Node.of(node))
    pod = {"metadata": {}, "spec": {"tolerations": tolerations(spec), "containers": []}}
    assert bool(node_for(pod, [node], [])) is admitted


def test_labels_of_the_configuration_are_required() -> None:
    asked = configuration(node_selector={"gpu": "h200"})
    plain, right = machine("a"), machine("b", labels={"gpu": "h200"})
    assert where({"configuration": asked}, plain, right) == ["b"]


def test_an_isolated_replica_shares_no_node_with_another_tenant() -> None:
    alone = {"isolation": Isolation(node="dedicated"), "tenant": "acme"}
    others, own = machine("a", tenants={"zeta": False}), machine("b", tenants={"acme": False})
    assert where(alone, others) == []
    assert where(alone, others, own) == ["b"]
    assert where(alone, machine("a", foreign=True)) == []


def test_nobody_joins_a_node_where_another_tenant_must_be_alone() -> None:
    assert where({"tenant": "acme"}, machine("a", tenants={"zeta": True})) == []


def test_siblings_are_spread_over_zones() -> None:
    zone = "topology.kubernetes.io/zone"
    first = machine("a", 4, labels={zone: "1"}, owners={"tenant-a/shop": 1})
    assert where({}, first, machine("b", 8, labels={zone: "2"})) == ["b"]


@pytest.mark.parametrize(("count", "expected"), [(2, ["a", "b"]), (3, [])])
def test_a_gang_gets_all_of_its_nodes_or_none(count: int, expected: list[str]) -> None:
    asked = configuration(nodes=count, count=4 * count, nvlink=False)
    assert where({"configuration": asked}, machine("a"), machine("b")) == expected


def test_an_nvlink_gang_stays_in_one_domain() -> None:
    asked = configuration(nodes=2, count=8)
    clique = "nvidia.com/gpu.clique"
    split = [machine("a", labels={clique: "1"}), machine("b", labels={clique: "2"})]
    assert where({"configuration": asked}, *split) == []
    assert where({"configuration": asked}, *split, machine("c", labels={clique: "2"})) == ["b", "c"]
    assert where({"configuration": asked}, machine("a"), machine("b")) == []


def test_a_gang_is_packed_into_the_rack_with_least_to_spare() -> None:
    asked = configuration(nodes=2, count=8, nvlink=False)
    rack = "topology.kubernetes.io/rack"
    big = [machine(f"a{i}", labels={rack: "1"}) for i in range(3)]
    small = [machine(f"b{i}", labels={rack: "2"}) for i in range(2)]
    assert where({"configuration": asked}, *big, *small) == ["b0", "b1"]
