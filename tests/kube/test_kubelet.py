"""The stand-in for a kubelet runs the pods of a real API server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pods import a_pod, gone, in_phase, is_ready, only, script, waited

from controlplane.cluster import NODES, PODS, Cluster
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.local.volumes import Disks

TINY = "flashplane.io/tiny"


@pytest.fixture
def kubelet(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Kubelet]:
    node = LocalNode(f"node-of-{namespace}", {TINY: 1}, {"own": namespace})
    environment = {"PATH": os.environ["PATH"]}
    running = Kubelet(cluster, [node], disks=Disks(tmp_path), environment=environment)
    running.start()
    yield running
    running.stop(grace_seconds=1)
    cluster.delete(NODES, node.name)


def test_pods_run_end_and_go(cluster: Cluster, namespace: str, kubelet: Kubelet) -> None:
    tiny = {"resources": {"limits": {TINY: "1"}, "requests": {TINY: "1"}}}
    here = {"nodeSelector": {"own": namespace}}
    cluster.create(
        PODS, a_pod("long", script("exec sleep 1000", **tiny), namespace=namespace, **here)
    )
    pod = waited(cluster, "long", is_ready, namespace=namespace)
    assert pod["spec"]["nodeName"] == f"node-of-{namespace}"
    assert pod["status"]["podIP"].startswith("127.")
    assert pod["status"]["phase"] == "Running"
    short = script("printf done > /dev/termination-log; exit 3", **tiny)
    body = a_pod("short", short, namespace=namespace, restartPolicy="Never", **here)
    cluster.create(PODS, body)
    cluster.delete(PODS, "long", namespace=namespace)
    gone(cluster, "long", namespace=namespace)
    ended = only(in_phase(cluster, "short", "Failed", namespace=namespace)["status"])
    assert ended["state"]["terminated"]["message"] == "done"


def test_a_crash_is_told_as_in_a_cluster(
    cluster: Cluster, namespace: str, kubelet: Kubelet
) -> None:
    body = a_pod("a", script("exit 5"), namespace=namespace, nodeSelector={"own": namespace})
    cluster.create(PODS, body)
    pod = waited(cluster, "a", lambda it: only(it)["restartCount"] == 1, namespace=namespace)
    assert only(pod["status"])["lastState"]["terminated"]["exitCode"] == 5
    cluster.delete(PODS, "a", namespace=namespace)
    gone(cluster, "a", namespace=namespace)
