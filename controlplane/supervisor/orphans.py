"""Ends what a dead supervisor left running; called by `up` and `down` as the folder's owner."""

import signal
from collections.abc import Callable
from pathlib import Path

from controlplane.local.running import Processes
from controlplane.local.volumes import Disks
from controlplane.processes.process import is_running, stop
from controlplane.processes.table import SUPERVISOR, ProcessTable
from controlplane.supervisor.services import STOP_ORDER

# Long enough for the gateway's streams to drain and for PostgreSQL's last checkpoint.
STOP_TIMEOUT_SECONDS = 30.0


def stop_orphans(table: ProcessTable, say: Callable[[str], None]) -> int:
    """Stop every listed process that still runs, in order, and empty the list; return how many."""
    table.remove(SUPERVISOR)
    stopped = 0
    known = [name for name in STOP_ORDER if name in table.processes]
    for name in [*known, *(name for name in table.processes if name not in STOP_ORDER)]:
        identity = table.processes[name]
        if is_running(identity):
            say(f"Stopping {name}, pid {identity.pid}, left by a supervisor that died")
            stop(identity, _stop_signal(name), STOP_TIMEOUT_SECONDS)
            stopped += 1
        table.remove(name)
    return stopped


def stop_pods(folder: Path, say: Callable[[str], None]) -> int:
    """Stop what an operator that was killed left of its pods in `folder`; return how many."""
    file = Disks(folder).process_file
    stopped = Processes(file).end_orphans() if file.exists() else 0
    if stopped:
        say(f"Stopped {stopped} processes of pods, left by an operator that died")
    return stopped


def _stop_signal(name: str) -> signal.Signals:
    return signal.SIGINT if name == "postgres" else signal.SIGTERM
