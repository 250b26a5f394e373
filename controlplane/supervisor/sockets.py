"""A private folder for Unix sockets whose paths fit into the kernel's 107 bytes.

Called by `layout` when the tree starts and when it has stopped. The folder lies in the data folder
where that is short enough, else under /tmp, with a symbolic link in the data folder that remembers
it.
"""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

SOCKET_PATH_LIMIT_BYTES = 107
LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
# PostgreSQL splits its list of socket folders at commas, and URLs escape the rest.
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def fits(folder: Path) -> bool:
    """Return whether every socket of ours can be bound in `folder`."""
    path = os.fspath(folder / LONGEST_SOCKET_NAME)
    return len(os.fsencode(path)) < SOCKET_PATH_LIMIT_BYTES and PLAIN.fullmatch(path) is not None


def socket_folder(data_dir: Path) -> Path:
    """Return the folder for sockets of this data folder; makes it (0700) when it is missing."""
    link = data_dir / "run"
    if fits(link) and not link.is_symlink():
        link.mkdir(mode=0o700, exist_ok=True)
        return link
    if link.is_symlink():
        target = link.readlink()
        if _is_private(target):
            return target
        link.unlink()
    target = Path(tempfile.mkdtemp(prefix="fp-", dir="/tmp"))
    link.symlink_to(target)
    return target


def remove_short_folder(data_dir: Path) -> None:
    """Leave nothing under /tmp once no server runs."""
    link = data_dir / "run"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) == 0o700
    )
