"""Embedded servers of one test alone, so that it may kill them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from support.polling import until

from controlplane.processes.process import spawn
from controlplane.supervisor.postgres import Postgres
from controlplane.supervisor.valkey import Valkey


class KillableServer:
    """PostgreSQL or Valkey in a process that can be killed and started again."""

    def __init__(self, server: Postgres | Valkey, log_file: Path) -> None:
        self._server = server
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, crash recovery included, and wait until it answers."""
        self._server.prepare()
        command = self._server.command()
        self._process = spawn(command, record=lambda identity: None, log_file=self._log_file)
        until(self._server.is_ready, seconds=20, what="the server to be ready")

    def kill(self) -> None:
        """Kill it, and whatever it started, with SIGKILL."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop it, and all that it started, where they are: it is silent, but not gone."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        for one in (process, *process.children(recursive=True)):
            one.send_signal(number)


@contextmanager
def killable(server: Postgres | Valkey, log_file: Path) -> Iterator[KillableServer]:
    """The server, running; killed when left."""
    running = KillableServer(server, log_file)
    running.start()
    try:
        yield running
    finally:
        running.kill()
