"""The cluster in memory does what every cluster does; tests/kube asks a real one the same."""

import pytest
from support.cluster_contract import Ending, Reading, Writing

from controlplane.cluster import NAMESPACES
from controlplane.local.objects import LocalCluster


@pytest.fixture
def cluster() -> LocalCluster:
    return LocalCluster()


@pytest.fixture
def namespace(cluster: LocalCluster) -> str:
    cluster.create(NAMESPACES, {"metadata": {"name": "own"}})
    return "own"


class TestReading(Reading): ...


class TestWriting(Writing): ...


class TestEnding(Ending): ...
