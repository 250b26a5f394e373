"""`up --detach`, `status` and `down`: the product seen from outside its supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from controlplane.processes.process import (
    Identity,
    ask_to_end,
    is_frozen,
    is_running,
    uptime_seconds,
    wait_gone,
)
from controlplane.processes.table import SUPERVISOR, ProcessTable, read_table
from controlplane.settings import child_environment
from controlplane.supervisor.announcement import (
    Announcement,
    announced_pids,
    read_announcement,
)
from controlplane.supervisor.built_in import BuiltInModel
from controlplane.supervisor.errors import AlreadyRunning, SupervisorError
from controlplane.supervisor.layout import Layout
from controlplane.supervisor.orphans import stop_orphans, stop_pods
from controlplane.supervisor.proof import Prover
from controlplane.supervisor.services import MODEL, READY_SECONDS, Addresses

POLL_SECONDS = 0.05
# The sum of what every child may take to stop, and some.
DOWN_SECONDS = 150.0


@dataclass(frozen=True)
class ProcessStatus:
    """One line of `status`.

    `state` is running, gone, or frozen: there, but kept from running by a signal. `uptime_seconds`
    is None when the process is gone.
    """

    name: str
    pid: int
    state: str
    uptime_seconds: float | None


def start_detached(
    layout: Layout, arguments: Sequence[str], tell: Callable[[str], None]
) -> Announcement:
    """Run `flashplane up` in the background; return when it is ready.

    Args:
        arguments: of `flashplane`.
        tell: is given every line it prints until then.

    Raises:
        SupervisorError: it ended before it was ready; its last lines have said why.
    """
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(layout.supervisor_log, "ab", opener=_private) as log:
        position = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment({"PYTHONUNBUFFERED": "1"}),
            start_new_session=True,
        )
    try:
        while True:
            ended = process.poll() is not None
            ready = _announced_by(layout, process.pid)
            position = _tell_new_lines(layout.supervisor_log, position, tell)
            if ready is not None:
                return ready
            if ended:
                raise SupervisorError(
                    f"Flashplane did not start; {layout.supervisor_log} keeps what it said above."
                )
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise


def join_running(
    layout: Layout, addresses: Addresses, model: BuiltInModel, *, fresh: bool
) -> Announcement | None:
    """Wait until the product that runs here already has served a completion; None: nothing runs.

    Raises:
        AlreadyRunning: what runs is not what is asked for.
        SupervisorError: it does not serve.
    """
    supervisor = read_table(layout.process_file).get(SUPERVISOR)
    if supervisor is None or not is_running(supervisor):
        return None
    deadline = time.monotonic() + READY_SECONDS
    while (running := read_announcement(layout.up_file)) is None:
        if time.monotonic() > deadline or not is_running(supervisor):
            raise SupervisorError(
                f"The start under way, pid {supervisor.pid}, did not get ready: see "
                f"{layout.supervisor_log}, or end it with `flashplane down`."
            )
        time.sleep(POLL_SECONDS)
    asked = (addresses.gateway_url, addresses.admin_url, addresses.worker_url, model)
    runs = (running.base_url, running.admin_url, running.worker_url, running.model)
    if fresh or asked != runs:
        raise AlreadyRunning(
            f"Flashplane is already running in {layout.root}, pid {supervisor.pid}, at "
            f"{running.base_url}: end it with `flashplane down` to start it differently."
        )
    headers = {"authorization": f"Bearer {running.api_key}"}
    with httpx.Client(base_url=addresses.gateway_url, headers=headers, trust_env=False) as http:
        Prover(http, tick=lambda: None, timeout_seconds=READY_SECONDS).complete(MODEL)
    return running


def stop_running(layout: Layout, say: Callable[[str], None]) -> bool:
    """Stop the product, or what a dead supervisor left of it; return whether anything ran.

    Raises:
        SupervisorError: the supervisor does not end.
    """
    supervisor = read_table(layout.process_file).get(SUPERVISOR)
    if supervisor is not None and is_running(supervisor):
        ask_to_end(supervisor, signal.SIGTERM)
        if not wait_gone(supervisor, DOWN_SECONDS):
            raise SupervisorError(
                f"The supervisor, pid {supervisor.pid}, does not stop: see "
                f"{layout.supervisor_log}, or run `kill -9 {supervisor.pid}` and then "
                "`flashplane down` again."
            )
        return True
    if not layout.root.exists():
        return False
    with layout.owned():
        stopped = stop_orphans(ProcessTable(layout.process_file), say)
        stopped += stop_pods(layout.pods, say)
        layout.tidy()
    return stopped > 0


def process_statuses(layout: Layout) -> list[ProcessStatus]:
    """Return every listed process, the supervisor first."""
    processes = read_table(layout.process_file)
    names = sorted(processes, key=lambda name: name != SUPERVISOR)
    return [_status(name, processes[name]) for name in names]


def _status(name: str, identity: Identity) -> ProcessStatus:
    if not is_running(identity):
        return ProcessStatus(name, identity.pid, "gone", None)
    state = "frozen" if is_frozen(identity) else "running"
    return ProcessStatus(name, identity.pid, state, uptime_seconds(identity))


def _announced_by(layout: Layout, pid: int) -> Announcement | None:
    if announced_pids(layout.up_file).get(SUPERVISOR) != pid:
        return None
    return read_announcement(layout.up_file)


def _tell_new_lines(log_file: Path, position: int, tell: Callable[[str], None]) -> int:
    """Tell the whole lines after `position` and return where the next one begins."""
    with open(log_file, "rb") as log:
        log.seek(position)
        complete, newline, _ = log.read().rpartition(b"\n")
    for line in complete.decode(errors="replace").splitlines():
        tell(line)
    return position + len(complete) + len(newline)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
