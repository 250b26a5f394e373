"""Small private files that are whole or absent, whatever happens meanwhile; used by all of `up`."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controlplane.supervisor.errors import SupervisorError


def write_json(path: Path, content: dict[str, Any]) -> None:
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


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's content, empty when there is no such file.

    Raises:
        SupervisorError: the file is not what `write_json` wrote.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SupervisorError(f"{path} is damaged: remove it and start again.")
    return content


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SupervisorError(
                f"The disk that holds {folder} is full: free some space, or choose another folder "
                "with FLASHPLANE_DATA_DIR."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise SupervisorError(
                f"{error.filename or folder} cannot be written ({error.strerror}): make it "
                "writable, or choose another folder with FLASHPLANE_DATA_DIR."
            ) from error
        raise
