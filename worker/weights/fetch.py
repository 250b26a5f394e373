"""Fetches a folder of weights: resumed where it broke off, verified, and there all at once.

    DIRECTORY                 the weights; it exists only when they are complete
    DIRECTORY.<version>.part  what has come so far of one version of the source
    DIRECTORY.lock            held by the one process of this node that fetches

A pod that was ended goes on where it was; two pods of a node fetch once; and an engine never reads
half a folder, since the last step is a rename.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

from worker.errors import WeightsError
from worker.model.progress import Advance, reported
from worker.weights.digest import digest_of
from worker.weights.source import Interrupted, Source, SourceFile
from worker.weights.written import Written

MOST_FAILURES = 8  # in a row, without a byte between them
LONGEST_PAUSE_SECONDS = 30.0
RESERVE_BYTES = 64 << 20
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Fetch:
    """One folder that is fetched."""

    def __init__(
        self,
        source: Source,
        directory: Path,
        *,
        digest: str = "",
        parallel: int = 8,
        first_pause_seconds: float = 0.5,
    ) -> None:
        """Prepare.

        Args:
            digest: what the folder must be, as `weights.digest` tells it; empty: unchecked.
            parallel: files read at once.
            first_pause_seconds: before a broken read is tried again; doubles.
        """
        self._source = source
        self._directory = directory
        self._digest = digest
        self._parallel = parallel
        self._pause_seconds = first_pause_seconds
        self._failed = Event()

    def run(self) -> bool:
        """Fetch; return False when the weights were there already.

        Raises:
            WeightsError: they cannot be had, or are not those that `digest` names.
            OSError: the disk does not take them.
        """
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._directory.with_name(f"{self._directory.name}.lock")):
            if self._directory.is_dir():
                return False
            files = self._patiently(self._source.files)
            part = self._part(files)
            self._check_room(part, files)
            digest = digest_of(self._fetch_all(part, files))
            if self._digest and digest != self._digest:
                shutil.rmtree(part)
                raise WeightsError(
                    f"these are other weights: their digest is {digest}, not {self._digest}"
                )
            _log.info("fetched %s: %s", self._directory, digest)
            os.rename(part, self._directory)
            _sync(self._directory.parent)
        return True

    def _part(self, files: list[SourceFile]) -> Path:
        """Return the folder of this version's files, and remove those of others."""
        listed = "".join(sorted(f"{it.path}\0{it.size_bytes}\0{it.version}\n" for it in files))
        version = hashlib.sha256(listed.encode()).hexdigest()[:12]
        part = self._directory.with_name(f"{self._directory.name}.{version}.part")
        for other in self._directory.parent.glob(f"{self._directory.name}.*.part"):
            if other != part:
                shutil.rmtree(other)
        part.mkdir(exist_ok=True)
        return part

    def _check_room(self, part: Path, files: list[SourceFile]) -> None:
        missing = sum(it.size_bytes - _size(part / it.path) for it in files)
        free = shutil.disk_usage(part).free
        if missing + RESERVE_BYTES > free:
            raise WeightsError(
                f"{missing / 1e9:.1f} GB are still to come, and {part.parent} has only "
                f"{free / 1e9:.1f} GB left"
            )

    def _fetch_all(self, part: Path, files: list[SourceFile]) -> dict[str, str]:
        total_bytes = sum(it.size_bytes for it in files)
        with (
            reported(total_bytes, doing="fetching", done="fetched") as advance,
            ThreadPoolExecutor(self._parallel) as pool,
        ):
            largest_first = sorted(files, key=lambda it: -it.size_bytes)
            futures = {
                pool.submit(self._fetch, part / it.path, it, advance): it for it in largest_first
            }
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                return {it.path: future.result() for future, it in futures.items() if future.done()}
            finally:
                self._failed.set()  # those that still run end at their next byte
                pool.shutdown(cancel_futures=True)

    def _fetch(self, file: Path, listed: SourceFile, advance: Advance) -> str:
        """Bring one file, beginning where an earlier try ended; return its SHA-256 in hex."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with Written(file, advance) as written:
            self._patiently(lambda: self._read_on(written, listed), lambda: written.size_bytes)
        if listed.sha256 and written.sha256 != listed.sha256:
            file.unlink()
            raise WeightsError(f"{listed.path} came with other bytes than its source names")
        return written.sha256

    def _read_on(self, written: Written, listed: SourceFile) -> None:
        if written.size_bytes > listed.size_bytes:
            written.restart()
        if written.size_bytes == listed.size_bytes:
            return
        with self._source.read(listed, written.size_bytes) as (begins_at, chunks):
            if begins_at != written.size_bytes:
                written.restart()
            for chunk in chunks:
                if self._failed.is_set():
                    raise WeightsError("another file could not be fetched")
                if written.size_bytes + len(chunk) > listed.size_bytes:
                    written.restart()  # or a source without end would fill the disk
                    raise Interrupted(f"{listed.path} has more than {listed.size_bytes} bytes")
                written.append(chunk)
        if written.size_bytes != listed.size_bytes:
            raise Interrupted(
                f"{listed.path} ended after {written.size_bytes} of {listed.size_bytes} bytes"
            )

    def _patiently(self, step: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Do a step until it is not interrupted; gives up when it does not get on."""
        failures, reached = 0, progress()
        while True:
            try:
                return step()
            except Interrupted as error:
                failures = 1 if progress() > reached else failures + 1
                reached = max(reached, progress())
                if failures > MOST_FAILURES:
                    raise WeightsError(f"given up after {MOST_FAILURES} tries: {error}") from error
                _log.warning("interrupted, will go on: %s", error)
                pause = min(self._pause_seconds * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
                if self._failed.wait(pause):
                    raise WeightsError("another file could not be fetched") from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with open(file, "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process fetches these weights: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _sync(folder: Path) -> None:
    """Make a rename in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
