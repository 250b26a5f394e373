"""The loop over a real API server: it follows changes, and writes nothing at rest."""

from collections.abc import Callable

from prometheus_client import REGISTRY
from support.kube_objects import settings_map
from support.kube_server import KubeServer
from support.polling import until
from support.watching import Watching, data_of

from controlplane.cluster import CONFIG_MAPS, Object
from controlplane.kube import Kube
from controlplane.operator.actions import Apply, Plan
from controlplane.operator.runtime.controller import Controller
from controlplane.operator.runtime.executor import Executor
from controlplane.watching.cache import Cache, Key


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


def writes() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == "flashplane_operator_writes"
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


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
