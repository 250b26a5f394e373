"""One real API server per run, with our kinds installed; a fresh namespace per test."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from support.kube_objects import make_namespace
from support.kube_server import AssetsMissing, KubeServer, assets, install_kinds
from support.watching import Watching, reflectors

from controlplane.cluster import NAMESPACES
from controlplane.kube import Kube

NUMBERS = count(1)
HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Get the programs before the first test's clock starts: building them takes minutes."""
    if any(HERE in item.path.parents for item in session.items):
        with suppress(AssetsMissing):  # the fixture says so
            assets()


@pytest.fixture(scope="session")
def kube_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """A running API server with our kinds."""
    try:
        programs = assets()
    except AssetsMissing as missing:
        pytest.skip(str(missing))
    server = KubeServer(tmp_path_factory.mktemp("kube"), programs)
    try:
        server.start()
        install_kinds(server)
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_kube_server(tmp_path: Path) -> Iterator[KubeServer]:
    """A server of this test alone, which it may kill; running, with our kinds."""
    try:
        server = KubeServer(tmp_path / "kube", assets())
    except AssetsMissing as missing:
        pytest.skip(str(missing))
    try:
        server.start()
        install_kinds(server)
        yield server
    finally:
        server.stop()


@pytest.fixture
def kube(kube_server: KubeServer) -> Iterator[Kube]:
    """A client of the server, as its admin."""
    client = Kube(kube_server.kubeconfig)
    yield client
    client.close()


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A fresh namespace with its ServiceAccount; its deletion is begun, not awaited."""
    name = f"test-{next(NUMBERS)}"
    make_namespace(kube, name)
    yield name
    kube.delete(NAMESPACES, name)


@pytest.fixture
def cluster(kube: Kube, namespace: str) -> Kube:
    """The client, with a fresh namespace to work in."""
    return kube


@pytest.fixture
def watching() -> Iterator[Watching]:
    """Starts reflectors that end with the test."""
    with reflectors() as start:
        yield start
