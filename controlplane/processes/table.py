"""The durable list of processes: what the next supervisor needs to find what this one left.

Written before a process does anything, so a crash at any moment leaves no process unlisted.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from controlplane.processes.files import read_json, write_json
from controlplane.processes.process import Identity

SUPERVISOR = "supervisor"  # the process that starts the others, in its own list


class ProcessTable:
    """Name to identity, kept in one file; only the folder's owner writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._processes = read_table(path)

    @property
    def processes(self) -> Mapping[str, Identity]:
        """Every process that was started and not removed."""
        return self._processes

    def record(self, name: str, identity: Identity) -> None:
        """Keep one process, durably."""
        self._processes[name] = identity
        self.save()

    def remove(self, name: str) -> None:
        """Forget a process that has ended.

        A full disk keeps the file as it was, which only makes the next supervisor look in vain: it
        must not keep this one from stopping the others.
        """
        self._processes.pop(name, None)
        with suppress(OSError):
            self.save()

    def save(self) -> None:
        """Write the whole list again."""
        write_json(self._path, {name: asdict(it) for name, it in self._processes.items()})


def read_table(path: Path) -> dict[str, Identity]:
    """Return the processes listed in a file; empty when there is none."""
    return read_json(path, dict[str, Identity]) or {}
