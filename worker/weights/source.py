"""Where weights come from: a Protocol. `hub`, `bucket` and `folder` are the sources there are."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from worker.errors import WeightsError

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file as its source lists it.

    Attributes:
        path: relative, with slashes.
        version: changes when its bytes do: a hash, an ETag.
        sha256: of its bytes, in hex; empty where the source does not tell.
    """

    path: str
    size_bytes: int
    version: str
    sha256: str = ""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        # A line feed would let one name stand for two lines of the folder's digest.
        odd = "\\" in self.path or not self.path.isprintable()
        if not parts or ".." in parts or self.path.startswith("/") or odd:
            raise WeightsError(f"the source lists a file called {self.path!r}, which is no path")


class Interrupted(Exception):
    """Reading broke off, or could not begin now; trying again may help."""


class Source(Protocol):
    """A folder of files, elsewhere."""

    def files(self) -> list[SourceFile]:
        """List all files.

        Raises:
            WeightsError: it is not there, or not for us.
            Interrupted: it does not answer.
        """

    def read(
        self, file: SourceFile, offset: int
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Read a file from `offset` on; tells the offset it really begins at, which may be 0.

        Raises:
            WeightsError: the file has gone or has changed.
            Interrupted: while it is read as well.
        """
