"""`Kube` reads, creates and deletes on a real API server, and tells errors apart."""

import pytest
from support.kube_objects import a_replica, settings_map
from support.kube_server import KubeServer

from controlplane import cluster as words
from controlplane.cluster import CONFIG_MAPS, PODS, Resource
from controlplane.crd.base import REPLICAS
from controlplane.kube import Kube


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


def test_a_stranger_is_forbidden(kube_server: KubeServer) -> None:
    stranger = Kube(kube_server.kubeconfig_of("unknown", "stranger"))
    with pytest.raises(words.Forbidden):
        stranger.list(PODS)
    stranger.close()


def test_a_server_that_is_not_there_is_unreachable(kube_server: KubeServer) -> None:
    kubeconfig = kube_server.folder / "nowhere.kubeconfig"
    text = kube_server.kubeconfig.read_text()
    kubeconfig.write_text(text.replace(f":{kube_server.port}", ":1"))
    client = Kube(kubeconfig)
    with pytest.raises(words.Unreachable):
        client.get(PODS, "a", namespace="default")
    client.close()
