"""One cluster with the whole product on it for the tests of this folder, which share it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
from support import site as sites
from support.kube_server import AssetsMissing, KubeServer, assets, install_kinds
from support.site import Site

from controlplane.supervisor.valkey import Valkey


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    command = [sys.executable, "-c", "from worker.cli import app; app()"]
    subprocess.run([*command, "model", "tiny", str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="package")
def site(
    make_database: Callable[[], AbstractContextManager[str]],
    valkey: Valkey,
    tiny: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The cluster; its API server is its own, since tests take it away."""
    folder = tmp_path_factory.mktemp("site")
    try:
        server = KubeServer(folder / "kube", assets())
    except AssetsMissing as missing:
        pytest.skip(str(missing))
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    try:
        server.start()
        install_kinds(server)
        with (
            make_database() as database_url,
            sites.site(server, database_url, valkey.url, folder, tiny) as running,
        ):
            yield running
    finally:
        server.stop()
