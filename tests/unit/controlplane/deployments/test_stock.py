"""How many replicas there is room for, from nodes and reservations."""

from typing import Any

from support.orders import H200

from controlplane.cluster import Object
from controlplane.deployments.catalogue import free_replicas

WIDE = H200.model_copy(update={"id": "h200-x16", "count": 16, "nodes": 2})
PICKY = H200.model_copy(update={"id": "picky", "node_selector": {"gpu": "h200"}})


def node(name: str, gpus: int, **parts: Any) -> Object:
    labels = parts.pop("labels", {})
    status = {"allocatable": {"nvidia.com/gpu": str(gpus)}} | parts.pop("status", {})
    return {"metadata": {"name": name, "labels": labels}, "status": status, **parts}


def reserved(node: str, gpus: int) -> Object:
    return {"status": {"placements": [{"node": node, "gpus": gpus}]}}


def test_what_is_reserved_is_not_free() -> None:
    nodes = [node("a", 8), node("b", 8)]
    replicas = [reserved("a", 5), {"spec": {}}]
    assert free_replicas([H200], nodes, replicas) == {"h200-x4": 0 + 2}


def test_rests_of_two_nodes_make_no_replica() -> None:
    assert free_replicas([H200], [node("a", 3), node("b", 3)], []) == {"h200-x4": 0}


def test_a_replica_of_several_nodes_needs_all_of_them() -> None:
    nodes = [node(name, 8) for name in "abc"]
    assert free_replicas([WIDE], nodes, []) == {"h200-x16": 1}
    assert free_replicas([WIDE], nodes, [reserved("a", 1), reserved("b", 1)]) == {"h200-x16": 0}


def test_nodes_that_are_cordoned_unready_or_others_do_not_count() -> None:
    unready = {"conditions": [{"type": "Ready", "status": "False"}]}
    nodes = [
        node("a", 8, spec={"unschedulable": True}, labels={"gpu": "h200"}),
        node("b", 8, status=unready, labels={"gpu": "h200"}),
        node("c", 8),
    ]
    assert free_replicas([PICKY], nodes, []) == {"picky": 0}


def test_more_reserved_than_there_is_is_no_room() -> None:
    assert free_replicas([H200], [node("a", 4)], [reserved("a", 8)]) == {"h200-x4": 0}
