"""How PostgreSQL's programs are run, which refuse to be run by root, or by a user without a name.

Both run them in a user namespace where they are called nobody: files keep their owner and no folder
is opened up. Where the kernel forbids that, root runs them as nobody, in a folder of nobody's that
holds copies of them, since nobody may not enter root's home. Called by `start`, `doctor` and
`postgres`.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from controlplane.supervisor.binaries import postgres_program

NOBODY = 65534
NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@dataclass(frozen=True)
class Programs:
    """A folder of PostgreSQL's programs and what goes before each to run it."""

    folder: Path
    prefix: tuple[str, ...] = ()

    def argv(self, name: str) -> list[str]:
        """Return the beginning of a command that runs one of the programs."""
        return [*self.prefix, os.fspath(self.folder / name)]


def installed_programs() -> Programs:
    """Return the wheel's programs, run by us as we are or, if that is refused, as nobody."""
    return Programs(postgres_program("postgres").parent, NAMESPACE if _is_refused() else ())


def needs_nobody() -> bool:
    """Return whether we are root and the kernel forbids user namespaces."""
    if os.geteuid() != 0:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0


def nobodys_folder(link: Path) -> Path:
    """Return a folder of nobody's outside our home, made when missing; `link` remembers it."""
    if link.is_symlink() and link.readlink().is_dir():
        return link.readlink()
    link.unlink(missing_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="flashplane-", dir="/var/tmp"))
    os.chown(folder, NOBODY, NOBODY)
    link.symlink_to(folder)
    return folder


def nobodys_programs(folder: Path) -> Programs:
    """Return copies of the wheel's programs in `folder`, run as nobody."""
    package = postgres_program("postgres").parents[2]
    # The programs find their libraries in a folder beside the package.
    for source in (package / "pginstall", package.with_name(f"{package.name}.libs")):
        target = folder / source.relative_to(package.parent)
        if source.is_dir() and not target.exists():
            unfinished = folder / f"{source.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(source, unfinished, symlinks=True)
            target.parent.mkdir(exist_ok=True)
            unfinished.rename(target)
    return Programs(folder / package.name / "pginstall" / "bin", AS_NOBODY)


def _is_refused() -> bool:
    """Whether PostgreSQL refuses to be run by this user: root, or one without a passwd entry, as
    containers with arbitrary user ids have."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_uid == 0
    except KeyError:
        return True
