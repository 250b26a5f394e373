"""A file that grows over several tries, and its hash. Used by `fetch`."""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.model.progress import Advance
from worker.weights.source import CHUNK_BYTES


class Written:
    """A file as far as it has come: opened at its end, hashed from its beginning.

    What is there when it is opened counts; on leaving it is on the disk for good.
    """

    def __init__(self, path: Path, advance: Advance) -> None:
        """Prepare. `advance` is called with the bytes that are there more, or fewer."""
        self.size_bytes = 0
        self._path = path
        self._advance = advance
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = open(self._path, "a+b")
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            self._count(chunk)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    @property
    def sha256(self) -> str:
        """Of all that is there, in hex."""
        return self._hash.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Write on."""
        self._file.write(chunk)
        self._count(chunk)

    def restart(self) -> None:
        """Begin anew, with nothing."""
        self._file.truncate(0)
        self._advance(-self.size_bytes)
        self.size_bytes = 0
        self._hash = hashlib.sha256()

    def _count(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        self._hash.update(chunk)
        self._advance(len(chunk))
