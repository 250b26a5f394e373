"""`flashplane operator` as a Deployment keeps it: some processes, each started again when it ends.

Used by tests that kill them.
"""

import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port

LOOK_SECONDS = 0.2
STOP_SECONDS = 20.0
_SAMPLE = re.compile(r"^(flashplane_operator_writes_total\{.*\}) (\S+)$", re.MULTILINE)


@dataclass
class Running:
    """One process."""

    process: subprocess.Popen[bytes]
    port: int

    def metrics(self) -> str:
        """Return its page of metrics; empty while it does not listen."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                return str(page.read().decode())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return ""

    def leads(self) -> bool:
        """Return whether it says that it leads."""
        return "flashplane_operator_leading 1.0" in self.metrics()


class Operators:
    """`count` operators of one lease."""

    def __init__(self, environment: Mapping[str, str], folder: Path, count: int = 2) -> None:
        self.starts = 0
        self._environment = environment
        self._folder = folder
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._running = [self._start() for _ in range(count)]
        self._thread = threading.Thread(target=self._keep, name="operators", daemon=True)
        self._thread.start()

    def leaders(self) -> list[Running]:
        """Return those that say that they lead."""
        with self._lock:
            running = list(self._running)
        return [it for it in running if it.leads()]

    def kill_leader(self) -> None:
        """kill -9 whoever leads."""
        (leader,) = self.leaders()
        leader.process.kill()
        leader.process.wait()

    def writes(self) -> dict[str, float]:
        """Return what the leader has written to the API server so far, by kind of write."""
        (leader,) = self.leaders()
        return {name: float(value) for name, value in _SAMPLE.findall(leader.metrics())}

    def log(self) -> str:
        """Return what all of them have said."""
        return "".join(it.read_text() for it in sorted(self._folder.glob("operator-*.log")))

    def stop(self) -> None:
        """End them as Kubernetes would."""
        self._stopping.set()
        self._thread.join()
        for running in self._running:
            running.process.terminate()
        try:
            for running in self._running:
                running.process.wait(STOP_SECONDS)
        finally:
            for running in self._running:
                running.process.kill()
                running.process.wait()

    def _keep(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            with self._lock:
                self._running = [
                    it if it.process.poll() is None else self._start() for it in self._running
                ]

    def _start(self) -> Running:
        self.starts += 1
        name, port = f"operator-{self.starts}", free_port()
        environment = {
            **os.environ,
            **self._environment,
            "FLASHPLANE_OPERATOR_IDENTITY": name,
            "FLASHPLANE_OPERATOR_HOST": "127.0.0.1",
            "FLASHPLANE_OPERATOR_PORT": str(port),
        }
        with open(self._folder / f"{name}.log", "wb") as log:
            command = [sys.executable, "-m", "controlplane.cli", "operator"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return Running(process, port)
