"""`Kube` watches a real API server, and every watch ends."""

import threading
import time

import pytest
from support.kube_objects import settings_map
from support.kube_server import KubeServer
from support.polling import until

from controlplane import cluster as words
from controlplane.cluster import CONFIG_MAPS
from controlplane.crd.base import REPLICAS
from controlplane.kube import Kube


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
