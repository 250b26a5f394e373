"""A plan's writes on a real API server: in order, read at once, and some ends are quiet."""

import pytest
from support.kube_objects import settings_map
from support.watching import data_of

from controlplane.cluster import CONFIG_MAPS, NAMESPACES, Conflict, Object, key_of
from controlplane.kube import Kube
from controlplane.operator.actions import Apply, Create, Delete, Patch, Plan
from controlplane.operator.runtime.executor import Executor
from controlplane.watching.cache import Cache


def test_what_is_written_is_read_at_once(cluster: Kube, namespace: str) -> None:
    cache: Cache[Object] = Cache(CONFIG_MAPS, lambda body: body)
    executor = Executor(cluster, [cache])
    executor.execute(Plan((Create(CONFIG_MAPS, settings_map(namespace, "a", x="1")),)))
    assert data_of(cache, namespace) == {"x": "1"}
    executor.execute(Plan((Patch(CONFIG_MAPS, namespace, "a", {"data": {"x": "2"}}),)))
    assert data_of(cache, namespace) == {"x": "2"}


def test_a_plan_ends_at_the_first_action_that_fails(cluster: Kube, namespace: str) -> None:
    cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"x": "1"}}
    plan = Plan(
        (
            Apply(CONFIG_MAPS, settings_map(namespace, "before")),
            Patch(CONFIG_MAPS, namespace, "a", stale),
            Apply(CONFIG_MAPS, settings_map(namespace, "after")),
        )
    )
    with pytest.raises(Conflict):
        Executor(cluster, []).execute(plan)
    there = {key_of(it)[1] for it in cluster.list(CONFIG_MAPS, namespace=namespace).items}
    assert there >= {"a", "before"}
    assert "after" not in there


def test_what_is_gone_is_as_good_as_deleted(cluster: Kube, namespace: str) -> None:
    made = cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    plan = Plan(
        (
            Delete(CONFIG_MAPS, namespace, "never"),
            Delete(CONFIG_MAPS, namespace, "a", uid="its-predecessor"),
        )
    )
    assert Executor(cluster, []).execute(plan)
    assert cluster.get(CONFIG_MAPS, "a", namespace=namespace) == made


def test_a_change_of_what_is_gone_ends_the_plan_quietly(cluster: Kube, namespace: str) -> None:
    plan = Plan((Patch(CONFIG_MAPS, namespace, "never", {"data": {"x": "1"}}),))
    assert Executor(cluster, []).execute(plan) is False


def test_an_ending_namespace_ends_the_plan_quietly(kube: Kube, namespace: str) -> None:
    ending = f"{namespace}-ending"
    kube.create(NAMESPACES, {"metadata": {"name": ending}})
    held = settings_map(ending, "held")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    kube.create(CONFIG_MAPS, held)
    kube.delete(NAMESPACES, ending)
    for action in (Create, Apply):
        plan = Plan((action(CONFIG_MAPS, settings_map(ending, "late")),))
        assert Executor(kube, []).execute(plan) is False
    kube.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace=ending)
