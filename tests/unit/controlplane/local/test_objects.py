"""What only the cluster in memory can do: forget, fail on purpose, end its watches."""

import threading

import pytest
from support.cluster_contract import replica, text

from controlplane.cluster import CONFIG_MAPS, Gone, Invalid, Unreachable
from controlplane.crd.base import REPLICAS
from controlplane.local.objects import Call, LocalCluster, Moment


def test_a_watch_from_before_its_history_is_too_late() -> None:
    cluster = LocalCluster(history=2)
    since = cluster.list(CONFIG_MAPS).resource_version
    for name in "abc":
        cluster.create(CONFIG_MAPS, text("default", name))
    with pytest.raises(Gone):
        next(cluster.watch(CONFIG_MAPS, resource_version=since))
    since = cluster.list(CONFIG_MAPS).resource_version
    cluster.create(CONFIG_MAPS, text("default", "d"))
    cluster.history.forget()
    with pytest.raises(Gone):
        next(cluster.watch(CONFIG_MAPS, resource_version=since))


def test_a_watch_ends_with_a_bookmark() -> None:
    cluster = LocalCluster()
    since = cluster.list(CONFIG_MAPS).resource_version
    cluster.create(REPLICAS, replica("default", "a"))
    (event,) = cluster.watch(CONFIG_MAPS, resource_version=since, timeout_seconds=0.01)
    assert event.type == "BOOKMARK"
    assert int(event.object["metadata"]["resourceVersion"]) == int(since) + 1


def test_closing_ends_the_watches() -> None:
    cluster = LocalCluster()
    since = cluster.list(CONFIG_MAPS).resource_version
    thread = threading.Thread(
        target=lambda: list(cluster.watch(CONFIG_MAPS, resource_version=since))
    )
    thread.start()
    cluster.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("moment", "there"), [("before", 0), ("after", 1)])
def test_a_fault_comes_before_or_after_the_write(moment: Moment, there: int) -> None:
    def fail(call: Call, at: Moment) -> None:
        if (call.verb, at) == ("create", moment):
            raise Unreachable("on purpose")

    cluster = LocalCluster(faults=fail)
    with pytest.raises(Unreachable):
        cluster.create(CONFIG_MAPS, text("default", "a"))
    assert len(cluster.list(CONFIG_MAPS).items) == there


def test_a_watch_can_break_between_two_events() -> None:
    events = 0

    def fail(call: Call, at: Moment) -> None:
        nonlocal events
        if (call.verb, at) == ("watch", "after"):
            events += 1
            if events == 2:
                raise Unreachable("on purpose")

    cluster = LocalCluster(faults=fail)
    since = cluster.list(CONFIG_MAPS).resource_version
    for name in "ab":
        cluster.create(CONFIG_MAPS, text("default", name))
    watch = cluster.watch(CONFIG_MAPS, resource_version=since)
    assert next(watch).object["metadata"]["name"] == "a"
    with pytest.raises(Unreachable):
        next(watch)


def test_what_a_replica_is_cannot_be_changed() -> None:
    cluster = LocalCluster()
    cluster.create(REPLICAS, replica("default", "a", drain="scaled down"))
    for change in ({"revision": "r2"}, {"drain": ""}, {"configuration": {"gpu": "H100"}}):
        with pytest.raises(Invalid):
            cluster.patch(REPLICAS, "a", {"spec": change}, namespace="default")
