"""A cache keeps up with a real API server, whatever becomes of its watches."""

import threading

from prometheus_client import REGISTRY
from support.kube_objects import settings_map
from support.kube_server import KubeServer
from support.polling import until
from support.watching import Watching, data_of

from controlplane.cluster import CONFIG_MAPS, Resource
from controlplane.kube import Kube

NOWHERE = Resource("nowhere.io", "v1", "things", "Thing")


def relists() -> float:
    return (
        REGISTRY.get_sample_value("flashplane_watch_relists_total", {"resource": "configmaps"})
        or 0.0
    )


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
