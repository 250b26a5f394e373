"""The process tree: starts children, restarts those that die, stops all in order.

One thread owns it. `up` starts services one by one, then calls `tick` until it is told to stop.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.processes.backoff import deaths_in_a_row, restart_delay_seconds
from controlplane.processes.process import Identity, bound_log, spawn, stop
from controlplane.processes.table import ProcessTable
from controlplane.supervisor.errors import ServiceFailed
from controlplane.supervisor.service import Service

TICK_SECONDS = 0.05
# A child that dies this often before it was ever ready will not get better by itself.
DEATHS_BEFORE_READY = 3


@dataclass
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    ready: bool = False
    was_ready: bool = False
    deaths: int = 0
    restart_at: float = 0.0


class Tree:
    """Children of one supervisor.

    Args:
        table: where their identities are kept.
        log_dir: `<name>.out` there takes what a child prints.
        say: tells the user one line.
    """

    def __init__(self, table: ProcessTable, log_dir: Path, say: Callable[[str], None]) -> None:
        self._table = table
        self._log_dir = log_dir
        self._say = say
        self._children: dict[str, _Child] = {}

    def start(self, service: Service) -> None:
        """Start a child and keep it alive from now on."""
        child = _Child(service)
        self._children[service.name] = child
        self._spawn(child)

    def wait_ready(self, names: Sequence[str], timeout_seconds: float) -> None:
        """Keep the tree alive until all of `names` are ready.

        Raises:
            ServiceFailed: one of them keeps dying, or the deadline came first.
        """
        deadline = time.monotonic() + timeout_seconds
        while waiting := [name for name in names if not self._children[name].ready]:
            self.tick()
            for name in waiting:
                child = self._children[name]
                if not child.was_ready and child.deaths >= DEATHS_BEFORE_READY:
                    raise ServiceFailed(self._failure(name, f"died {child.deaths} times"))
            if time.monotonic() > deadline:
                name = waiting[0]
                raise ServiceFailed(self._failure(name, f"not ready in {timeout_seconds:.0f} s"))
            time.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Notice deaths and readiness; restart what is due and whose needs are ready."""
        for child in self._children.values():
            bound_log(self._log_file(child.service.name))
            if child.process is None:
                if time.monotonic() >= child.restart_at and self._needs_ready(child.service):
                    self._spawn_again(child)
            elif child.process.poll() is not None:
                self._bury(child, child.process.returncode)
            elif not child.ready and child.service.is_ready():
                if child.was_ready:
                    self._say(f"{child.service.name} is back, pid {child.process.pid}")
                child.ready = child.was_ready = True

    def stop(self, name: str) -> None:
        """Stop one child and stop caring about it; nothing happens when it is not there."""
        child = self._children.pop(name, None)
        identity = self._table.processes.get(name)
        if child is None or identity is None:
            return
        service = child.service
        if not stop(identity, service.stop_signal, service.stop_timeout_seconds):
            self._say(f"{name} did not stop in {service.stop_timeout_seconds:.0f} s and was killed")
        if child.process is not None:
            child.process.wait()
        self._table.remove(name)

    def _spawn(self, child: _Child) -> None:
        name = child.service.name

        def record(identity: Identity) -> None:
            self._table.record(name, identity)

        child.started_at = time.monotonic()
        child.process = spawn(
            child.service.argv,
            record=record,
            log_file=self._log_file(name),
            environment=child.service.environment,
        )

    def _spawn_again(self, child: _Child) -> None:
        try:
            self._spawn(child)
        except OSError as error:  # a full disk, no memory; the others go on meanwhile
            child.deaths += 1
            delay_seconds = restart_delay_seconds(child.deaths)
            child.restart_at = time.monotonic() + delay_seconds
            name, reason = child.service.name, error.strerror
            self._say(f"{name} cannot be started ({reason}); trying again in {delay_seconds:g} s")

    def _bury(self, child: _Child, return_code: int) -> None:
        name = child.service.name
        child.process = None
        child.ready = False
        child.deaths = deaths_in_a_row(child.deaths, time.monotonic() - child.started_at)
        delay_seconds = restart_delay_seconds(child.deaths)
        child.restart_at = time.monotonic() + delay_seconds
        # It stays listed until another takes its place: `status` then tells that it is gone.
        how = f"by signal {-return_code}" if return_code < 0 else f"with exit code {return_code}"
        self._say(f"{name} died {how}; starting it again in {delay_seconds:g} s")

    def _needs_ready(self, service: Service) -> bool:
        return all(self._children[need].ready for need in service.needs if need in self._children)

    def _log_file(self, name: str) -> Path:
        return self._log_dir / f"{name}.out"

    def _failure(self, name: str, what: str) -> str:
        log_file = self._log_file(name)
        lines = log_file.read_text(errors="replace").strip().splitlines() or ["nothing"]
        return f"{name} {what}; its last words in {log_file}: {lines[-1][:300]}"
