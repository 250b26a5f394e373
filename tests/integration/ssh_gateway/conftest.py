"""An SSH gateway before a shell of this machine, and endpoints that open it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from support.local_remote import LocalRemote

from controlplane.cluster import Object
from controlplane.ssh_gateway.directory import Directory
from controlplane.ssh_gateway.server import Gatehouse, listen


def endpoint(name: str = "dev", namespace: str = "fp-a", **changes: Any) -> Object:
    """Return a GPUEndpoint that is ready."""
    spec = {"tenant": namespace[3:], "configurations": ["h200"], **changes}
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"},
        "spec": spec,
        "status": {"phase": "Ready", "replica": f"{name}-0"},
    }


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


@dataclass
class Gateway:
    directory: Directory
    port: int
    host_key: asyncssh.SSHKey
    remote: LocalRemote
    house: Gatehouse

    def open(self, key: asyncssh.SSHKey, **changes: Any) -> Object:
        """Make the endpoint `dev` true, opened by `key`."""
        keys = [{"name": "laptop", "publicKey": public(key)}]
        body = endpoint(**{"sshKeys": keys, **changes})
        self.directory.update(body)
        return body


@pytest.fixture(scope="session")
def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="session")
def other_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    remote = LocalRemote(tmp_path)
    directory = Directory()
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    house = Gatehouse(directory, remote)
    acceptor = await listen(house, host_key, host="127.0.0.1", port=0)
    yield Gateway(directory, acceptor.get_port(), host_key, remote, house)
    acceptor.close()
    await acceptor.wait_closed()


@pytest.fixture
def connect(gateway: Gateway) -> Callable[..., Any]:
    def connect(
        key: asyncssh.SSHKey | list[asyncssh.SSHKey], user: str = "dev", **options: Any
    ) -> Any:
        known = asyncssh.import_known_hosts(
            f"[127.0.0.1]:{gateway.port} {public(gateway.host_key)}"
        )
        return asyncssh.connect(
            "127.0.0.1",
            gateway.port,
            username=user,
            client_keys=key if isinstance(key, list) else [key],
            known_hosts=known,
            agent_path=None,
            config=None,
            **options,
        )

    return connect
