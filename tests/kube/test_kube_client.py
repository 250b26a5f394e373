"""`Kube` speaks with a real API server as `Cluster` says."""

import threading
import time

import pytest
from support.kube_server import KubeServer
from support.polling import until

from controlplane import cluster as words
from controlplane.cluster import CONFIG_MAPS, NAMESPACES, PODS, Resource
from controlplane.crd.base import REPLICAS
from controlplane.kube import Kube


def settings_map(namespace: str, name: str, **data: str) -> words.Object:
    return {"metadata": {"namespace": namespace, "name": name}, "data": data}


def a_replica(namespace: str, name: str) -> words.Object:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "ownerKind": "GPUEndpoint",
            "owner": "box",
            "path": "bare",
            "revision": "r1",
            "configuration": {"id": "h200-x1", "gpu": "H200", "memoryGib": 140.4},
        },
    }


def test_what_is_created_is_read_listed_and_deleted(cluster: Kube, namespace: str) -> None:
    made = cluster.create(CONFIG_MAPS, settings_map(namespace, "a", word="x"))
    assert cluster.get(CONFIG_MAPS, "a", namespace=namespace) == made
    (listed,) = (
        it
        for it in cluster.list(CONFIG_MAPS, namespace=namespace).items
        if it["metadata"]["name"] == "a"
    )
    assert listed["kind"] == "ConfigMap"
    cluster.delete(CONFIG_MAPS, "a", namespace=namespace)
    with pytest.raises(words.NotFound):
        cluster.get(CONFIG_MAPS, "a", namespace=namespace)


def test_lists_come_in_pages(cluster: Kube, namespace: str) -> None:
    for number in range(5):
        body = settings_map(namespace, f"m{number}")
        body["metadata"]["labels"] = {"paged": "yes"}
        cluster.create(CONFIG_MAPS, body)
    first = cluster.list(CONFIG_MAPS, namespace=namespace, labels="paged=yes", limit=3)
    rest = cluster.list(
        CONFIG_MAPS,
        namespace=namespace,
        labels="paged=yes",
        limit=3,
        continuation=first.continuation,
    )
    assert [len(first.items), len(rest.items)] == [3, 2]
    assert rest.continuation == ""


def test_errors_are_told_apart(cluster: Kube, namespace: str) -> None:
    made = cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    with pytest.raises(words.AlreadyExists):
        cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    with pytest.raises(words.Conflict):
        cluster.delete(CONFIG_MAPS, "a", namespace=namespace, uid="another")
    cluster.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace=namespace)
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    with pytest.raises(words.Conflict):
        cluster.patch(CONFIG_MAPS, "a", stale, namespace=namespace)
    wrong = a_replica(namespace, "r")
    wrong["spec"]["configuration"]["memoryGib"] = "much"
    with pytest.raises(words.Invalid, match="memoryGib"):
        cluster.create(REPLICAS, wrong)
    with pytest.raises(words.NotFound):
        cluster.list(Resource("nowhere.io", "v1", "things", "Thing"))


def test_nothing_is_let_into_a_namespace_that_ends(kube: Kube, namespace: str) -> None:
    ending = f"{namespace}-ending"
    body = {"metadata": {"name": ending}}
    kube.create(NAMESPACES, body)
    held = settings_map(ending, "held")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    kube.create(CONFIG_MAPS, held)
    kube.delete(NAMESPACES, ending)
    with pytest.raises(words.NamespaceTerminating):
        kube.create(CONFIG_MAPS, settings_map(ending, "late"))
    kube.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace=ending)


def test_a_stranger_is_forbidden(kube_server: KubeServer) -> None:
    stranger = Kube(kube_server.kubeconfig_of("unknown", "stranger"))
    with pytest.raises(words.Forbidden):
        stranger.list(PODS)
    stranger.close()


def test_a_status_is_written_beside_the_spec(cluster: Kube, namespace: str) -> None:
    body = a_replica(namespace, "r")
    cluster.apply(REPLICAS, body)
    written = cluster.apply_status(REPLICAS, {**body, "status": {"phase": "Reserved"}})
    assert (written["status"]["phase"], written["metadata"]["generation"]) == ("Reserved", 1)
    assert cluster.apply(REPLICAS, body)["status"]["phase"] == "Reserved"
    stale = {**body["metadata"], "resourceVersion": "1"}
    with pytest.raises(words.Conflict):
        cluster.apply_status(REPLICAS, {"metadata": stale, "status": {"phase": "Failed"}})


def test_what_a_manager_leaves_out_goes_and_what_others_own_stays(
    cluster: Kube, namespace: str
) -> None:
    cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", mine="1", gone="1"))
    cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", theirs="2"), manager="other")
    applied = cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", mine="3"))
    assert applied["data"] == {"mine": "3", "theirs": "2"}


def test_applying_the_same_again_writes_nothing(cluster: Kube, namespace: str) -> None:
    body = a_replica(namespace, "r")
    versions = {
        cluster.apply(REPLICAS, body)["metadata"]["resourceVersion"],
        cluster.apply(REPLICAS, body)["metadata"]["resourceVersion"],
    }
    assert len(versions) == 1


def test_a_watch_tells_changes_and_ends_in_time(cluster: Kube, namespace: str) -> None:
    since = cluster.list(CONFIG_MAPS, namespace=namespace).resource_version
    cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    cluster.delete(CONFIG_MAPS, "a", namespace=namespace)
    began = time.monotonic()
    events = cluster.watch(
        CONFIG_MAPS, resource_version=since, namespace=namespace, timeout_seconds=1
    )
    told = [
        (event.type, event.object["metadata"]["name"])
        for event in events
        if event.object["metadata"].get("name") == "a"
    ]
    assert told == [("ADDED", "a"), ("DELETED", "a")]
    assert time.monotonic() - began < 5


def test_a_watch_from_a_forgotten_version_is_gone(kube: Kube) -> None:
    with pytest.raises(words.Gone):
        list(kube.watch(REPLICAS, resource_version="1", timeout_seconds=5))


def test_closing_ends_running_watches(kube_server: KubeServer, namespace: str) -> None:
    client = Kube(kube_server.kubeconfig)
    since = client.list(CONFIG_MAPS, namespace=namespace).resource_version
    seen: list[words.WatchEvent] = []
    ended = threading.Event()

    def read() -> None:
        try:
            watch = client.watch(CONFIG_MAPS, resource_version=since, namespace=namespace)
            for event in watch:
                seen.append(event)
        except words.Unreachable:
            pass
        ended.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    client.create(CONFIG_MAPS, settings_map(namespace, "a"))
    until(lambda: seen, seconds=5, what="the first event")
    client.close()
    assert ended.wait(5)


def test_a_server_that_is_not_there_is_unreachable(kube_server: KubeServer) -> None:
    kubeconfig = kube_server.folder / "nowhere.kubeconfig"
    text = kube_server.kubeconfig.read_text()
    kubeconfig.write_text(text.replace(f":{kube_server.port}", ":1"))
    client = Kube(kubeconfig)
    with pytest.raises(words.Unreachable):
        client.get(PODS, "a", namespace="default")
    client.close()
