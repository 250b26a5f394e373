"""The embedded PostgreSQL after crashes, half-finished starts and reboots."""

import os
import shutil
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
from support.embedded import running
from support.tiny_disk import tiny_disk

from controlplane.processes.process import Identity, is_running, wait_gone
from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.postgres import Postgres
from controlplane.supervisor.unprivileged import nobodys_folder, nobodys_programs

QUICK = {"fsync": "off"}


def run(server: Postgres) -> AbstractContextManager[Identity]:
    return running(server.command(), server.is_ready, signal.SIGINT, server.sockets / "log")


def rows(server: Postgres) -> list[int]:
    with psycopg.connect(server.url()) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


def insert(server: Postgres, number: int) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (n int)")
        connection.execute("INSERT INTO numbers VALUES (%s)", [number])


@pytest.fixture(scope="module")
def cluster(server_folder: Path) -> Postgres:
    """A cluster with one row, not running."""
    sockets = server_folder / "own"
    sockets.mkdir()
    server = Postgres(sockets / "data", sockets, QUICK)
    server.prepare()
    with run(server):
        server.ensure_database()
        server.ensure_database()
        insert(server, 0)
    return server


def test_committed_rows_survive_a_kill(cluster: Postgres) -> None:
    with run(cluster) as identity:
        insert(cluster, 1)
        os.kill(identity.pid, signal.SIGKILL)
        assert wait_gone(identity, 10)
    cluster.prepare()
    with run(cluster):
        assert rows(cluster) == [0, 1]


def test_a_lock_file_that_names_a_stranger_is_disowned(cluster: Postgres) -> None:
    with run(cluster) as identity:
        lock = (cluster.data / "postmaster.pid").read_text()
        os.kill(identity.pid, signal.SIGKILL)
        assert wait_gone(identity, 10)
    # After a reboot the dead server's pid may be anybody's: here it is the test's own.
    (cluster.data / "postmaster.pid").write_text(f"{os.getpid()}\n{lock.partition(chr(10))[2]}")
    cluster.prepare()
    with run(cluster):
        assert 0 in rows(cluster)


def test_another_major_version_is_refused(cluster: Postgres) -> None:
    version = cluster.data / "PG_VERSION"
    major = version.read_text()
    version.write_text("15\n")
    with pytest.raises(SupervisorError, match="data of PostgreSQL 15, but the installed wheel"):
        cluster.prepare()
    version.write_text(major)
    cluster.prepare()


def test_a_half_made_cluster_is_made_again(server_folder: Path) -> None:
    data = server_folder / "half" / "data"
    unfinished = data.with_name("data.unfinished")
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    data.mkdir()
    server = Postgres(data, server_folder, QUICK)
    server.prepare()
    assert (data / "global").is_dir()
    assert not unfinished.exists()


def test_a_cluster_that_cannot_be_made_tells_why(server_folder: Path) -> None:
    server = Postgres(server_folder / "limited" / "data", server_folder, QUICK)
    with (
        tiny_disk(10_000),
        pytest.raises(SupervisorError, match=r"initdb failed \(File size limit"),
    ):
        server.prepare()
    assert not server.data.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_user_namespaces_root_runs_it_as_nobody(tmp_path: Path) -> None:
    link = tmp_path / "nobody"
    folder = nobodys_folder(link)
    assert nobodys_folder(link) == folder
    server = Postgres(folder / "data", folder, QUICK, nobodys_programs(folder))
    server.prepare()
    with run(server) as identity:
        assert Path(f"/proc/{identity.pid}").stat().st_uid == 65534
        server.ensure_database()
        insert(server, 7)
        assert rows(server) == [7]
    assert not is_running(identity)
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)
