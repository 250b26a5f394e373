"""Offers never overlap, whatever is told in between."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.replica_world import CONFIGURATION, node_body, replica_spec

from controlplane.cluster import Object
from controlplane.crd.base import REPLICA_LABEL
from controlplane.crd.replica import Replica
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.capacity.stock import Stock


def replica(name: str, **status: Any) -> Replica:
    body = Replica.body("t", name, spec=replica_spec().wire(), status=status)
    return Replica.of(body)


def pod(name: str, node: str, gpus: int, label: str = "") -> Object:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    labels = {REPLICA_LABEL: label} if label else {}
    return {
        "metadata": {"namespace": "t", "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": limits}}]},
        "status": {"phase": "Running"},
    }


def stock(**gpus: int) -> Stock:
    made = Stock()
    for name, count in gpus.items():
        made.set_node(name, Node.of(node_body(name, gpus=count)))
    return made


def test_many_replicas_that_ask_at_once_share_no_gpu() -> None:
    made = stock(a=8, b=8, c=4)
    with ThreadPoolExecutor(8) as pool:
        offers = list(pool.map(lambda i: made.offer(replica(f"r-{i}")), range(20)))
    assert Counter(it.node for offer in offers for it in offer) == {"a": 2, "b": 2, "c": 1}


def test_a_node_that_only_beats_is_the_same() -> None:
    made = Stock()
    body = node_body("a", gpus=4)
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    body["status"]["conditions"] = [ready]
    assert made.set_node("a", Node.of(body))
    ready["lastHeartbeatTime"] = "2026-01-01T00:05:00Z"
    assert not made.set_node("a", Node.of(body))
    ready["status"] = "False"
    assert made.set_node("a", Node.of(body))


def test_an_offer_lasts_until_its_reservation_is_seen_or_it_is_withdrawn() -> None:
    made = stock(a=4)
    offer = made.offer(replica("r-0"))
    assert offer
    made.set_replica(("t", "r-0"), replica("r-0", phase="Pending"))  # an old word
    assert not made.offer(replica("r-1"))
    placements = [it.wire() for it in offer]
    made.set_replica(("t", "r-0"), replica("r-0", phase="Reserved", placements=placements))
    assert not made.offer(replica("r-1"))
    made.set_replica(("t", "r-0"), replica("r-0", phase="Failed"))
    assert made.offer(replica("r-1"))
    made.withdraw(("t", "r-1"))
    assert made.offer(replica("r-2"))


def test_asking_again_replaces_the_offer() -> None:
    made = stock(a=4)
    assert made.offer(replica("r-0"))
    assert made.offer(replica("r-0"))


def test_a_replicas_own_pods_take_nothing_beside_its_reservation() -> None:
    made = stock(a=8)
    placed = replica("r-0", phase="Reserved", placements=[{"node": "a", "gpus": 4}])
    made.set_replica(("t", "r-0"), placed)
    made.set_pod(("t", "r-0-0"), pod("r-0-0", "a", 4, label="r-0"))
    assert made.room(CONFIGURATION, spot=False) == 1
    # Pods that outlive their replica still have the GPUs.
    made.set_replica(("t", "r-0"), None)
    assert made.room(CONFIGURATION, spot=False) == 1
    made.set_pod(("t", "r-0-0"), None)
    assert made.room(CONFIGURATION, spot=False) == 2


def test_foreign_pods_take_gpus_until_they_are_over() -> None:
    made = stock(a=8)
    made.set_pod(("x", "job"), pod("job", "a", 6))
    assert made.room(CONFIGURATION, spot=False) == 0
    ended = pod("job", "a", 6)
    ended["status"]["phase"] = "Succeeded"
    made.set_pod(("x", "job"), ended)
    assert made.room(CONFIGURATION, spot=False) == 2


@given(st.lists(st.tuples(st.sampled_from(["ask", "write", "give up", "pod"]), st.integers(0, 5))))
def test_no_gpu_is_ever_reserved_twice(steps: list[tuple[str, int]]) -> None:
    made, offers, gpus = stock(a=8, b=4), dict[str, Any](), {"a": 8, "b": 4}
    reserved: dict[str, Any] = {}
    foreign: set[str] = set()
    for what, number in steps:
        name = f"r-{number}"
        if what == "ask" and name not in reserved:
            offers[name] = made.offer(replica(name))
        elif what == "write" and offers.get(name):
            reserved[name] = offers.pop(name)
            wire = [it.wire() for it in reserved[name]]
            made.set_replica(("t", name), replica(name, phase="Reserved", placements=wire))
        elif what == "give up":
            reserved.pop(name, None)
            offers.pop(name, None)
            made.set_replica(("t", name), None)
        elif what == "pod":
            made.set_pod(("x", name), None if name in foreign else pod(name, "b", 1))
            foreign.symmetric_difference_update({name})
        taken: Counter[str] = Counter()
        for placements in [*reserved.values(), *offers.values()]:
            for it in placements:
                taken[it.node] += it.gpus
        assert taken["a"] <= gpus["a"]
        assert taken["b"] <= gpus["b"]
