"""Which node a pod goes to."""

from typing import Any

import pytest
from support.pods import a_pod, script

from controlplane.cluster import Object
from controlplane.local.scheduling import node_for

GPU = "nvidia.com/gpu"


def node(name: str, gpus: int = 8, *, labels: Any = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {"allocatable": {GPU: str(gpus)}},
    }


def pod(gpus: int = 0, on: str = "", phase: str = "Running", **spec: Any) -> Object:
    amounts = {GPU: str(gpus), "cpu": "64"} if gpus else {}
    resources = {"limits": {GPU: str(gpus)}, "requests": amounts} if gpus else {}
    body = a_pod("it", script("true", resources=resources), **spec)
    if on:
        body["spec"]["nodeName"] = on
    return {**body, "status": {"phase": phase}}


def required(key: str, operator: str, *values: str) -> Object:
    expressions = [{"key": key, "operator": operator, "values": list(values)}]
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def pinned(*names: str) -> Object:
    return required("kubernetes.io/hostname", "In", *names)


def test_gpus_are_counted_over_the_pods_that_live() -> None:
    nodes = [node("a"), node("b")]
    assert node_for(pod(8), nodes, []) == "a"
    assert node_for(pod(8), nodes, [pod(1, on="a")]) == "b"
    assert node_for(pod(8), nodes, [pod(1, on="a"), pod(1, on="b")]) is None
    assert node_for(pod(8), nodes, [pod(1, on="a", phase="Failed")]) == "a"


def test_init_containers_need_their_gpus_before_not_beside_the_others() -> None:
    init = pod(4)["spec"]["containers"]
    assert node_for(pod(4, initContainers=init), [node("a", 4)], []) == "a"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"affinity": pinned("b")}, "b"),
        ({"affinity": pinned("c")}, None),
        ({"affinity": required("rack", "NotIn", "1")}, "b"),
        ({"affinity": required("rack", "Exists")}, "a"),
        ({"affinity": required("row", "DoesNotExist")}, "a"),
        ({"affinity": required("rack", "Gt", "1")}, "b"),
        ({"affinity": required("rack", "Lt", "2")}, "a"),
        ({"affinity": required("row", "Lt", "2")}, None),
        ({"affinity": required("rack", "Near", "2")}, None),
        ({"nodeSelector": {"rack": "2"}}, "b"),
        ({"nodeSelector": {"rack": "3"}}, None),
    ],
)
def test_pods_go_where_they_ask_to(spec: Object, expected: str | None) -> None:
    nodes = [node("a", labels={"rack": "1"}), node("b", labels={"rack": "2"})]
    assert node_for(pod(1, **spec), nodes, []) == expected


def test_cordoned_and_tainted_nodes_take_only_who_tolerates() -> None:
    taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    assert node_for(pod(1), [node("a", unschedulable=True)], []) is None
    tainted = [node("a", taints=[taint])]
    assert node_for(pod(1), tainted, []) is None
    for toleration in (
        {"key": GPU, "operator": "Exists"},
        {"operator": "Exists"},
        {"key": GPU, "value": "present", "effect": "NoSchedule"},
    ):
        assert node_for(pod(1, tolerations=[toleration]), tainted, []) == "a"
    soft = [node("a", taints=[{**taint, "effect": "PreferNoSchedule"}])]
    assert node_for(pod(1), soft, []) == "a"
