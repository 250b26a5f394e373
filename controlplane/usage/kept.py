"""Journal segments that are kept once everything in them is in the database.

A database that is restored from a dump lacks what was settled since: these segments still tell it,
and `flashplane restore` reads them. A gateway's start does not. They are never the reason for a
full disk: they take half of what is free beyond the reserve at most, and the oldest go first.
Called by `journal` and `recovery`.
"""

import os
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.usage.segments import SUFFIX

FOLDER = "kept"


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    written_at: float
    size_bytes: int


class Kept:
    """The kept segments of the journal folder `path`; for its owner alone."""

    def __init__(self, path: Path, *, keep_seconds: float, reserve_bytes: int) -> None:
        self._path = path / FOLDER
        self._keep_seconds = keep_seconds
        self._reserve_bytes = reserve_bytes
        found = sorted(map(_file, self._path.glob(f"*/*{SUFFIX}")), key=lambda it: it.written_at)
        self._files = deque(found)
        self._size_bytes = sum(it.size_bytes for it in found)
        self._drop_old()

    def take(self, segment: Path, epoch_id: uuid.UUID) -> None:
        """Put a segment of an epoch aside that nothing else needs any more."""
        if not self._keep_seconds:
            segment.unlink()
            return
        folder = self._path / str(epoch_id)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = _file(segment.rename(folder / segment.name))
        except OSError:  # a disk so full that it takes no folder: room comes first
            segment.unlink()
            return
        self._files.append(file)
        self._size_bytes += file.size_bytes
        self._drop_old()
        free_bytes = self._disk_bytes()
        while self._files and self._size_bytes > free_bytes - self._reserve_bytes:
            free_bytes += self._drop_oldest()

    def free_bytes(self) -> int:
        """Return how much the disk still takes, having made room where it is below the reserve."""
        free_bytes = self._disk_bytes()
        while self._files and free_bytes < self._reserve_bytes:
            self._drop_oldest()
            free_bytes = self._disk_bytes()
        return free_bytes

    def _drop_old(self) -> None:
        while self._files and self._files[0].written_at < time.time() - self._keep_seconds:
            self._drop_oldest()

    def _drop_oldest(self) -> int:
        file = self._files.popleft()
        self._size_bytes -= file.size_bytes
        file.path.unlink(missing_ok=True)
        with suppress(OSError):  # others of its epoch are still there
            file.path.parent.rmdir()
        return file.size_bytes

    def _disk_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize


def _file(path: Path) -> _File:
    status = path.stat()
    return _File(path, status.st_mtime, status.st_size)
