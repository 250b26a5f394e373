"""Embedded Valkey: how it is started and asked; called by `services` and the tests' fixtures.

No TCP, one Unix socket in a private folder. Appended to disk every second: nothing of value is
lost with it, but a restart then keeps the replica registry and the job queue.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from controlplane.supervisor.binaries import valkey_server


@dataclass(frozen=True)
class Valkey:
    """One embedded server: `data` holds its append-only file, `sockets` its Unix socket."""

    data: Path
    sockets: Path

    @property
    def url(self) -> str:
        """Return the URL for redis-py."""
        return f"unix://{quote(os.fspath(self._socket))}"

    @property
    def _socket(self) -> Path:
        return self.sockets / "valkey"

    def prepare(self) -> None:
        """Make the data folder; safe to repeat."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Return the argument list that runs the server in the foreground; SIGTERM ends it."""
        return [
            *(os.fspath(valkey_server()), "--port", "0"),
            *("--unixsocket", os.fspath(self._socket), "--unixsocketperm", "700"),
            *("--dir", os.fspath(self.data), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
        ]

    def is_ready(self) -> bool:
        """Return whether it answers."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
