"""The gateway's durable memory of running requests: append-only segments on the local disk.

Opened and Progress survive a killed process (they are in the kernel when `append` returns); Final
survives a power cut (it is on the disk when `final` returns). One gateway process owns a journal
folder at a time. Called by the gateway, on its event loop only.
"""

import asyncio
import fcntl
import os
import uuid
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.errors import StartupError, Unavailable
from controlplane.usage.kept import Kept
from controlplane.usage.records import Final, Opened, Progress, Record
from controlplane.usage.segments import frame, segment_path
from controlplane.usage.traces import Trace


class JournalFull(Unavailable):
    """The journal's disk takes no more, so no request may start."""

    default_code = "journal_unavailable"


class JournalDir:
    """A journal folder owned by this process until `close` or death.

    Args:
        keep_seconds: how long segments are kept once all in them is staged.
        reserve_bytes: what of the disk kept segments must leave free.

    Raises:
        StartupError: another process owns it.
    """

    def __init__(self, path: Path, *, keep_seconds: float = 0, reserve_bytes: int = 0) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._lock, 32).decode(errors="replace").strip()
            os.close(self._lock)
            raise StartupError(
                f"The journal folder {path} belongs to a running gateway"
                f" (pid {owner or 'unknown'}): stop that one first, or set"
                " FLASHPLANE_JOURNAL_DIR to another folder."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self.kept = Kept(path, keep_seconds=keep_seconds, reserve_bytes=reserve_bytes)

    def epochs(self) -> list[uuid.UUID]:
        """Return the epochs that left a folder here, oldest first."""
        found = []
        for entry in self.path.iterdir():
            try:
                found.append(uuid.UUID(entry.name))
            except ValueError:
                continue
        return sorted(found)

    def folder(self, epoch_id: uuid.UUID) -> Path:
        """Return the folder of an epoch's segments."""
        return self.path / str(epoch_id)

    def close(self) -> None:
        """Let another process own the folder."""
        os.close(self._lock)


@dataclass(slots=True, eq=False)
class _Segment:
    path: Path
    fd: int
    size_bytes: int = 0
    # Requests with a record here whose end has not been staged yet.
    unstaged: set[uuid.UUID] = field(default_factory=set)


class Journal:
    """The journal of one epoch; see the module's text for what survives what."""

    def __init__(
        self, directory: JournalDir, epoch_id: uuid.UUID, *, segment_bytes: int = 16 * 2**20
    ) -> None:
        self._kept = directory.kept
        self._epoch_id = epoch_id
        self._folder = directory.folder(epoch_id)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        _fsync_folder(directory.path)
        self._segment_bytes = segment_bytes
        self._traces: dict[uuid.UUID, Trace] = {}
        self._number = 0
        self._current = self._new_segment()
        self._full: list[_Segment] = []  # no longer written to, kept for what is not staged
        self._unsynced: list[_Segment] = []  # full ones that may hold finals not on disk yet
        self._finals_written = 0
        self._finals_durable = 0
        self._sync: asyncio.Task[None] | None = None
        self._broken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def append(self, record: Opened | Progress) -> None:
        """Write a record; when this returns it survives the death of this process.

        Raises:
            JournalFull: it could not be written; the journal is as it was before.
        """
        self._write(record)
        if isinstance(record, Opened):
            self._traces.setdefault(record.request_id, Trace(record)).opened = record
        else:
            self._traces[record.request_id].apply(record)

    async def final(self, record: Final) -> Trace:
        """Write a request's end; when this returns it is on the disk. Return the whole request.

        Finals written while a sync runs share the next one.

        Raises:
            JournalFull: it could not be made durable. The trace has the end all the same.
        """
        trace = self._traces[record.request_id]
        trace.apply(record)
        self._write(record)
        self._finals_written += 1
        mine = self._finals_written
        while self._finals_durable < mine:
            if self._sync is None:
                self._sync = asyncio.create_task(self._sync_once())
            # Shielded: a client that goes away must not cancel the sync the others wait for.
            await asyncio.shield(self._sync)
        return trace

    def trace(self, request_id: uuid.UUID) -> Trace:
        """Return a request that has not been retired."""
        return self._traces[request_id]

    def retire(self, request_ids: Collection[uuid.UUID]) -> None:
        """Forget requests whose ends are staged; put the segments nobody needs any more aside."""
        for request_id in request_ids:
            self._traces.pop(request_id, None)
        for segment in (self._current, *self._full):
            segment.unstaged.difference_update(request_ids)
        kept = []
        for segment in self._full:
            if segment.unstaged or segment in self._unsynced:
                kept.append(segment)
            else:
                self._kept.take(segment.path, self._epoch_id)
        self._full = kept

    def free_bytes(self) -> int:
        """Return how much the journal's disk still takes; kept segments make room first."""
        return self._kept.free_bytes()

    async def close(self) -> None:
        """Wait for the last sync and close the files; they stay for recovery to remove."""
        if self._sync is not None:
            await asyncio.wait([self._sync])
        self._thread.shutdown()
        for segment in (self._current, *self._unsynced):
            os.close(segment.fd)

    def _write(self, record: Record) -> None:
        if self._broken:
            raise JournalFull("The journal's disk failed; the gateway must be restarted.")
        data = frame(record)
        try:
            if self._current.size_bytes + len(data) > self._segment_bytes:
                self._rotate()
            written = os.write(self._current.fd, data)
        except OSError as error:
            raise JournalFull(f"The journal cannot be written: {error.strerror}.") from error
        if written < len(data):
            # The disk filled up in mid-frame; a half frame would hide every later one.
            os.ftruncate(self._current.fd, self._current.size_bytes)
            raise JournalFull("The journal cannot be written: the disk is full.")
        self._current.size_bytes += len(data)
        self._current.unstaged.add(record.request_id)

    def _rotate(self) -> None:
        fresh = self._new_segment()
        self._full.append(self._current)
        self._unsynced.append(self._current)
        self._current = fresh

    def _new_segment(self) -> _Segment:
        path = segment_path(self._folder, self._number + 1)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number += 1
        _fsync_folder(self._folder)
        return _Segment(path, fd)

    async def _sync_once(self) -> None:
        covered, full, current = self._finals_written, list(self._unsynced), self._current
        loop = asyncio.get_running_loop()
        fds = [segment.fd for segment in (*full, current)]
        try:
            await loop.run_in_executor(self._thread, _fdatasync, fds)
        except OSError as error:
            # After a failed sync the kernel may have dropped the pages: nothing here is certain.
            self._broken = True
            raise JournalFull(f"The journal's disk failed: {error.strerror}.") from error
        finally:
            self._sync = None
        self._finals_durable = covered
        for segment in full:
            self._unsynced.remove(segment)
            os.close(segment.fd)


def _fdatasync(fds: list[int]) -> None:
    for fd in fds:
        os.fdatasync(fd)


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
