"""The runtime over a real API server: what it survives, and what it does not write."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from support.kube_server import KubeServer
from support.polling import until

from controlplane.cluster import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    Conflict,
    Object,
    Resource,
    key_of,
)
from controlplane.kube import Kube
from controlplane.operator.actions import (
    Apply,
    Create,
    Delete,
    Emit,
    Patch,
    Plan,
)
from controlplane.operator.runtime.cache import Cache, Key
from controlplane.operator.runtime.controller import Controller
from controlplane.operator.runtime.executor import Executor
from controlplane.operator.runtime.reflector import Reflector

NOWHERE = Resource("nowhere.io", "v1", "things", "Thing")


def settings_map(namespace: str, name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "labels": {"seen": "yes"}},
        "data": data,
    }


def writes() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == "flashplane_operator_writes"
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


Watching = Callable[..., tuple[Cache[Object], Reflector]]


@pytest.fixture
def watching() -> Iterator[Watching]:
    """Starts reflectors that end with the test."""
    started: list[tuple[Kube, Reflector]] = []

    def watch(server: KubeServer, resource: Resource = CONFIG_MAPS, **options: Any) -> Any:
        client = Kube(server.kubeconfig)
        cache: Cache[Object] = Cache(resource, lambda body: body)
        reflector = Reflector(client, cache, labels="seen=yes", **options)
        started.append((client, reflector))
        reflector.start()
        assert cache.synced.wait(20)
        return cache, reflector

    yield watch
    for client, reflector in started:
        reflector.stop()
        client.close()
    assert all(reflector.join(10) for _, reflector in started)


def data_of(cache: Cache[Object], namespace: str, name: str = "a") -> Any:
    body = cache.body(namespace, name)
    return None if body is None else body.get("data")


def test_a_cache_follows_what_others_do(
    kube_server: KubeServer, cluster: Kube, namespace: str, watching: Watching
) -> None:
    cluster.create(CONFIG_MAPS, settings_map(namespace, "a", x="1"))
    cache, _ = watching(kube_server)
    assert data_of(cache, namespace) == {"x": "1"}
    cluster.patch(CONFIG_MAPS, "a", {"data": {"x": "2"}}, namespace=namespace)
    until(lambda: data_of(cache, namespace) == {"x": "2"}, seconds=5, what="the change")
    cluster.delete(CONFIG_MAPS, "a", namespace=namespace)
    until(lambda: cache.body(namespace, "a") is None, seconds=5, what="the deletion")


def test_watches_that_end_are_begun_again_without_a_list(
    kube_server: KubeServer, cluster: Kube, namespace: str, watching: Watching
) -> None:
    cache, reflector = watching(kube_server, watch_seconds=1.0)
    lists = relists()
    for number in range(3):
        cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", x=str(number)))
        until(lambda: data_of(cache, namespace), seconds=5, what="the change")
        threading.Event().wait(0.9)
    assert data_of(cache, namespace) == {"x": "2"}
    assert relists() == lists
    assert reflector.age_seconds() < 5


def relists() -> float:
    return (
        REGISTRY.get_sample_value("flashplane_operator_relists_total", {"resource": "configmaps"})
        or 0.0
    )


def test_a_cache_outlives_the_api_server(own_kube_server: KubeServer, watching: Watching) -> None:
    server = own_kube_server
    client = Kube(server.kubeconfig)
    client.create(CONFIG_MAPS, settings_map("default", "a", x="1"))
    client.create(CONFIG_MAPS, settings_map("default", "b"))
    cache, _ = watching(server)
    server.kill_api()
    assert data_of(cache, "default") == {"x": "1"}
    server.start_api()
    client.patch(CONFIG_MAPS, "a", {"data": {"x": "2"}}, namespace="default")
    client.delete(CONFIG_MAPS, "b", namespace="default")
    until(lambda: data_of(cache, "default") == {"x": "2"}, seconds=40, what="the change")
    until(lambda: cache.body("default", "b") is None, seconds=10, what="the deletion")
    client.close()


def test_a_kind_that_is_not_installed_counts_as_empty_when_it_may(
    kube_server: KubeServer, watching: Watching
) -> None:
    cache, _ = watching(kube_server, NOWHERE, optional=True)
    assert cache.list() == []


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


def test_equal_events_are_counted_not_repeated(cluster: Kube, namespace: str) -> None:
    about = cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    twice = Emit(about, "Normal", "Scaled", "from 1 to 2")
    other = Emit(about, "Warning", "Refused", "the quota is used up")
    Executor(cluster, []).execute(Plan((twice, twice, other)))
    Executor(cluster, []).execute(Plan((twice,)))  # after a restart
    told = {it["message"]: it["count"] for it in cluster.list(EVENTS, namespace=namespace).items}
    assert told == {"from 1 to 2": 3, "the quota is used up": 1}


def test_an_object_with_much_to_tell_is_heard_so_often(cluster: Kube, namespace: str) -> None:
    about = cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    actions = [Emit(about, "Normal", "Noise", str(number)) for number in range(40)]
    Executor(cluster, []).execute(Plan(tuple(actions)))
    assert len(cluster.list(EVENTS, namespace=namespace).items) == 25


def copies(namespace: str, source: Cache[Object]) -> Callable[[Key], Plan]:
    """A controller's reconcile: every map `x` gets a copy `x-copy`."""

    def reconcile(key: Key) -> Plan:
        body = source.body(*key)
        if key[0] != namespace or body is None or key[1].endswith("-copy"):
            return Plan()
        name = f"{key[1]}-copy"
        there = source.body(namespace, name)
        if there is not None and there.get("data") == body.get("data"):
            return Plan()
        return Plan((Apply(CONFIG_MAPS, settings_map(namespace, name, **body["data"])),))

    return reconcile


def test_a_controller_follows_changes_and_rests(
    kube_server: KubeServer, cluster: Kube, namespace: str, watching: Watching
) -> None:
    cache, _ = watching(kube_server)
    executor = Executor(cluster, [cache])
    controller = Controller("copies", copies(namespace, cache), executor, workers=2)
    controller.on_change(cache)
    controller.start()
    for number in range(10):
        cluster.create(CONFIG_MAPS, settings_map(namespace, f"m{number}", x=str(number)))
    until(
        lambda: all(data_of(cache, namespace, f"m{n}-copy") == {"x": str(n)} for n in range(10)),
        seconds=10,
        what="all copies",
    )
    cluster.patch(CONFIG_MAPS, "m3", {"data": {"x": "new"}}, namespace=namespace)
    until(lambda: data_of(cache, namespace, "m3-copy") == {"x": "new"}, seconds=5, what="the copy")
    until(controller.queue.is_idle, seconds=5, what="rest")
    before = writes()
    for number in range(10):
        controller.queue.add((namespace, f"m{number}"))
    until(controller.queue.is_idle, seconds=5, what="rest")
    assert writes() == before
    controller.stop()
    assert controller.join(5)
