"""Runs the product as a user does: `flashplane up --detach` in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.ports import free_port

from controlplane.processes.process import identify, wait_gone

FLASHPLANE = Path(sys.executable).with_name("flashplane")
TIMEOUT_SECONDS = 180
# The suite's own settings must not leak into the product under test.
KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "OMP_NUM_THREADS", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Product:
    """One data folder, three ports and a built-in model."""

    folder: Path
    ports: tuple[int, int, int]
    model: str = "tiny"

    @property
    def data_dir(self) -> Path:
        return self.folder / ".flashplane"

    @property
    def flags(self) -> list[str]:
        port, admin_port, worker_port = map(str, self.ports)
        return [
            *("--port", port, "--admin-port", admin_port, "--worker-port", worker_port),
            *("--model", self.model),
        ]

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `flashplane ...` to its end."""
        return subprocess.run(
            [FLASHPLANE, *arguments],
            cwd=self.folder,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )

    def foreground(self) -> subprocess.Popen[str]:
        """Start `flashplane up` as from a terminal."""
        return subprocess.Popen(
            [FLASHPLANE, "up", *self.flags],
            cwd=self.folder,
            env=self._environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def up(self, *arguments: str) -> dict[str, Any]:
        """Start in the background; return what `up.json` then says."""
        result = self.command("up", "--detach", *self.flags, *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return self.announced()

    def down(self) -> None:
        """Stop, whatever runs."""
        result = self.command("down")
        assert result.returncode == 0, result.stdout + result.stderr

    def announced(self) -> dict[str, Any]:
        """Return the content of `up.json`."""
        content: dict[str, Any] = json.loads((self.data_dir / "up.json").read_text())
        return content

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {name: os.environ[name] for name in KEPT if name in os.environ} | more


@contextmanager
def product(folder: Path, model: str = "tiny") -> Iterator[Product]:
    """Give a product that is not started yet, and leave nothing of it running.

    Args:
        model: `tiny` starts fastest; `demo` for tests that look at answers.
    """
    it = Product(folder, (free_port(), free_port(), free_port()), model)
    try:
        yield it
    finally:
        it.down()


def processes_of(folder: Path) -> dict[int, str]:
    """Return pid and command line of every process that names `folder` or works in it."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in command or (process / "cwd").readlink() == folder:
                found[int(process.name)] = command
    found.pop(os.getpid(), None)
    return found


def kill(pid: int) -> None:
    """kill -9, and wait until the kernel has done it."""
    identity = identify(pid)
    assert identity is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_gone(identity, 10)
