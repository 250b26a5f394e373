"""The processes of all containers of one machine, listed so that the next kubelet finds them.

Called by `container` from many threads, and by `kubelet` when it starts.
"""

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from controlplane.local.launching import Command
from controlplane.processes.process import Identity, is_running, spawn, stop
from controlplane.processes.table import ProcessTable

ORPHAN_SECONDS = 5.0


class Processes:
    """Named processes; `file` is the list that outlives us."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._table = ProcessTable(file)
        self._lock = threading.Lock()

    def end_orphans(self) -> int:
        """End what an earlier kubelet left running; return how many there were."""
        left = dict(self._table.processes)
        running = [identity for identity in left.values() if is_running(identity)]
        for identity in running:
            with suppress(ProcessLookupError):
                os.kill(identity.pid, signal.SIGTERM)
        for identity in running:
            stop(identity, signal.SIGTERM, ORPHAN_SECONDS)
        for name in left:
            self._table.remove(name)
        return len(running)

    def start(self, name: str, command: Command, log_file: Path) -> subprocess.Popen[bytes]:
        """Start a process under a name.

        Raises:
            OSError: it cannot be started.
        """

        def record(identity: Identity) -> None:
            with self._lock:
                self._table.record(name, identity)

        return spawn(
            command.argv, record=record, log_file=log_file, environment=command.environment
        )

    def ended(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Forget a process that has ended, and end what it left in its group."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with self._lock:
            self._table.remove(name)
