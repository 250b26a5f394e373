"""Weights in a folder of this machine, such as a mounted claim: copied to a quicker disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import WeightsError
from worker.weights.source import CHUNK_BYTES, SourceFile


class Folder:
    """All files below a folder; links are followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> list[SourceFile]:
        """See `Source.files`."""
        found = sorted(path for path in self._folder.rglob("*") if path.is_file())
        if not found:
            raise WeightsError(f"{self._folder} has no files")
        return [self._file(path) for path in found]

    @contextmanager
    def read(self, file: SourceFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See `Source.read`."""
        try:
            with open(self._folder / file.path, "rb") as opened:
                opened.seek(offset)
                yield offset, iter(lambda: opened.read(CHUNK_BYTES), b"")
        except OSError as error:
            raise WeightsError(f"{self._folder / file.path}: {error.strerror}") from error

    def _file(self, path: Path) -> SourceFile:
        stat = path.stat()
        version = f"{stat.st_size}-{stat.st_mtime_ns}"
        return SourceFile(path.relative_to(self._folder).as_posix(), stat.st_size, version)
