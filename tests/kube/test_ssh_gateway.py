"""The SSH gateway as a process before a real API server."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from support.kube_server import KubeServer
from support.ports import free_port

from controlplane.cluster import Object
from controlplane.crd.base import ENDPOINTS
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.kube import Kube


@dataclass
class Gateway:
    port: int
    log: Path


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


@pytest.fixture(scope="module")
def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def gateway(kube_server: KubeServer, tmp_path: Path) -> Iterator[Gateway]:
    port = free_port()
    environment = {
        **os.environ,
        "KUBECONFIG": str(kube_server.kubeconfig),
        "FLASHPLANE_SSH_PORT": str(port),
        "FLASHPLANE_SSH_HOST_KEY": str(tmp_path / "host_key"),
        "FLASHPLANE_LOG_DIR": str(tmp_path),
    }
    argv = [sys.executable, "-m", "controlplane.cli", "ssh-gateway"]
    process = subprocess.Popen(argv, env=environment)
    yield Gateway(port, tmp_path / "ssh-gateway.log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


async def connect(gateway: Gateway, key: asyncssh.SSHKey) -> asyncssh.SSHClientConnection:
    """Connect as soon as the gateway listens and has been told of the endpoint."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncssh.connect(
                    "127.0.0.1",
                    gateway.port,
                    username="dev",
                    client_keys=[key],
                    known_hosts=None,
                    agent_path=None,
                    config=None,
                )
            except (OSError, asyncssh.PermissionDenied):
                await asyncio.sleep(0.1)


async def test_the_keys_in_the_cluster_open_and_close_the_door(
    cluster: Kube, namespace: str, gateway: Gateway, key: asyncssh.SSHKey
) -> None:
    keys: list[Object] = [{"name": "laptop", "publicKey": public(key)}]
    spec = {"tenant": "t", "configurations": ["h200"], "sshKeys": keys}
    body = GPUEndpoint.body(namespace, "dev", spec=spec)
    await asyncio.to_thread(cluster.create, ENDPOINTS, body)
    ready = GPUEndpoint.body(namespace, "dev", status={"phase": "Ready", "replica": "dev-0"})
    await asyncio.to_thread(cluster.apply_status, ENDPOINTS, ready)
    connection = await connect(gateway, key)
    # There is no node, so the API server cannot reach a container, and says so.
    done = await connection.run("true")
    assert (done.exit_status, "does not run right now" in str(done.stderr)) == (255, True)
    await asyncio.to_thread(
        cluster.patch, ENDPOINTS, "dev", {"spec": {"sshKeys": []}}, namespace=namespace
    )
    await asyncio.wait_for(connection.wait_closed(), 1)
    log = gateway.log.read_text()
    assert "ssh_revoked" in log
    assert key.get_fingerprint() in log
