"""The directory is told what the cluster holds, on the loop that it lives on."""

import asyncio
from collections.abc import Iterator

import asyncssh
import pytest

from controlplane.cluster import NAMESPACES
from controlplane.crd.base import ENDPOINTS
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.local.objects import LocalCluster
from controlplane.ssh_gateway.directory import Directory
from controlplane.ssh_gateway.watching import Watcher

KEY = asyncssh.generate_private_key("ssh-ed25519")
FINGERPRINT = KEY.get_fingerprint()


def add(cluster: LocalCluster, name: str) -> None:
    """Make an endpoint that the key opens."""
    public = KEY.export_public_key().decode()
    spec = {
        "tenant": "t",
        "configurations": ["h200"],
        "sshKeys": [{"name": "laptop", "publicKey": public}],
    }
    cluster.create(ENDPOINTS, GPUEndpoint.body("fp-t", name, spec=spec))
    status = {"phase": "Ready", "replica": f"{name}-0"}
    cluster.apply_status(ENDPOINTS, GPUEndpoint.body("fp-t", name, status=status))


class Told:
    """A directory with its watcher, and an event a change."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.directory = Directory()
        self.watcher = Watcher(cluster, self.directory, asyncio.get_running_loop())
        self._changed = asyncio.Event()
        self.directory.listen(self._changed.set)

    def opens(self, name: str) -> bool:
        return self.directory.authorize(name, FINGERPRINT) is not None

    async def until(self, name: str, *, opens: bool) -> None:
        async with asyncio.timeout(5):
            while self.opens(name) is not opens:
                await self._changed.wait()
                self._changed.clear()


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    cluster = LocalCluster()
    cluster.create(NAMESPACES, {"metadata": {"name": "fp-t"}})
    yield cluster
    cluster.close()


async def test_all_there_is_has_been_told_once_it_is_synced(cluster: LocalCluster) -> None:
    add(cluster, "dev")
    told = Told(cluster)
    told.watcher.start()
    await asyncio.wait_for(told.watcher.synced(), 5)
    assert told.opens("dev")
    told.watcher.stop()


async def test_doors_open_and_close_as_endpoints_come_and_go(cluster: LocalCluster) -> None:
    told = Told(cluster)
    told.watcher.start()
    await asyncio.wait_for(told.watcher.synced(), 5)
    add(cluster, "dev")
    await told.until("dev", opens=True)
    cluster.delete(ENDPOINTS, "dev", namespace="fp-t")
    await told.until("dev", opens=False)
    told.watcher.stop()
