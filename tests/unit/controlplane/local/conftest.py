"""A cluster in memory and kubelets on it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.cluster import NAMESPACES
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.local.objects import LocalCluster
from controlplane.local.volumes import Disks

TINY = "flashplane.io/tiny"


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """An empty one with the namespace `own`."""
    made = LocalCluster()
    made.create(NAMESPACES, {"metadata": {"name": "own"}})
    yield made
    made.close()


@pytest.fixture
def new_kubelet(cluster: LocalCluster, tmp_path: Path) -> Iterator[Callable[..., Kubelet]]:
    """Starts kubelets on the same disks; all are stopped at the end."""
    started: list[Kubelet] = []

    def start(*nodes: LocalNode, **claims: Path) -> Kubelet:
        kubelet = Kubelet(
            cluster,
            list(nodes) or [LocalNode("local", {TINY: 2})],
            disks=Disks(tmp_path / "disks", claims),
            environment={"PATH": os.environ["PATH"]},
        )
        started.append(kubelet)
        kubelet.start()
        return kubelet

    yield start
    for kubelet in started:
        kubelet.stop(grace_seconds=1)


@pytest.fixture
def kubelet(new_kubelet: Callable[..., Kubelet]) -> Kubelet:
    """A running one with a node of two tiny GPUs."""
    return new_kubelet()
