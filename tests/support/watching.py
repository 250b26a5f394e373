"""Caches that are fed from a real API server for as long as a test needs them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from support.kube_server import KubeServer

from controlplane.cluster import CONFIG_MAPS, Object, Resource
from controlplane.kube import Kube
from controlplane.watching.cache import Cache
from controlplane.watching.reflector import Reflector

Watching: TypeAlias = Callable[..., tuple[Cache[Object], Reflector]]


@contextmanager
def reflectors() -> Iterator[Watching]:
    """Starts reflectors, by default of what is labelled `seen=yes`; options are the reflector's."""
    started: list[tuple[Kube, Reflector]] = []

    def watch(
        server: KubeServer,
        resource: Resource = CONFIG_MAPS,
        labels: str = "seen=yes",
        **options: Any,
    ) -> tuple[Cache[Object], Reflector]:
        client = Kube(server.kubeconfig)
        cache: Cache[Object] = Cache(resource, lambda body: body)
        reflector = Reflector(client, cache, labels=labels, **options)
        started.append((client, reflector))
        reflector.start()
        assert cache.synced.wait(20)
        return cache, reflector

    try:
        yield watch
    finally:
        for client, reflector in started:
            reflector.stop()
            client.close()
        assert all(reflector.join(10) for _, reflector in started)


def data_of(cache: Cache[Object], namespace: str, name: str = "a") -> Any:
    """The data of a cached ConfigMap; None: there is none."""
    body = cache.body(namespace, name)
    return None if body is None else body.get("data")
