"""Private files that are whole or absent, whatever happens meanwhile. For `table`, and `up`."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from controlplane.errors import StartupError

Content = TypeVar("Content")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file's content atomically and durably; readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(
    path: Path, kind: type[Content], *, fix: str = "remove it and start again"
) -> Content | None:
    """Return a file's content, None when there is no such file.

    Args:
        kind: what was written: a dataclass or a dict, whose types are checked.
        fix: what to do about a damaged file.

    Raises:
        StartupError: the file is not what `write_json` wrote.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        raise StartupError(f"{path} is damaged: {fix}.") from None


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever somebody writes, replaces or removes a file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StartupError(
                f"The disk that holds {folder} is full: free some space, or choose another folder "
                "with FLASHPLANE_DATA_DIR."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StartupError(
                f"{error.filename or folder} cannot be written ({error.strerror}): make it "
                "writable, or choose another folder with FLASHPLANE_DATA_DIR."
            ) from error
        raise
