"""The tree on small real processes: readiness, restarts, dependencies, stopping."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny_disk import tiny_disk

from controlplane.processes.process import is_running
from controlplane.processes.table import ProcessTable, read_table
from controlplane.supervisor.errors import ServiceFailed
from controlplane.supervisor.service import Service
from controlplane.supervisor.tree import Tree


class Lines(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def said() -> Lines:
    return Lines()


@pytest.fixture
def table(tmp_path: Path) -> ProcessTable:
    return ProcessTable(tmp_path / "processes.json")


@pytest.fixture
def tree(table: ProcessTable, tmp_path: Path, said: Lines) -> Iterator[Tree]:
    tree = Tree(table, tmp_path / "log", said)
    yield tree
    for name in list(table.processes):
        tree.stop(name)


def sleeper(name: str, *needs: str, is_ready: Callable[[], bool] = lambda: True) -> Service:
    return Service(name, ("sleep", "60"), is_ready, needs=needs)


def tick_until(tree: Tree, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        tree.tick()
        time.sleep(0.01)


def test_ready_when_the_service_says_so(tree: Tree) -> None:
    answers = iter([False, False, True])
    tree.start(sleeper("one", is_ready=lambda: next(answers)))
    tree.wait_ready(["one"], 5)
    assert next(answers, "asked no more") == "asked no more"


def test_every_child_is_in_the_file(tree: Tree, table: ProcessTable, tmp_path: Path) -> None:
    tree.start(sleeper("one"))
    tree.start(sleeper("two"))
    listed = read_table(tmp_path / "processes.json")
    assert listed == table.processes
    assert all(is_running(identity) for identity in listed.values())


def test_a_killed_child_is_back_and_said_so(tree: Tree, table: ProcessTable, said: Lines) -> None:
    tree.start(sleeper("one"))
    tree.wait_ready(["one"], 5)
    before = table.processes["one"]
    os.kill(before.pid, signal.SIGKILL)
    tick_until(tree, lambda: any("is back" in line for line in said))
    assert said[0] == "one died by signal 9; starting it again in 0.25 s"
    assert table.processes["one"] != before
    assert is_running(table.processes["one"])


def test_a_child_that_cannot_be_started_again_is_tried_until_it_can(
    tree: Tree, table: ProcessTable, tmp_path: Path, said: Lines
) -> None:
    tree.start(sleeper("one"))
    tree.wait_ready(["one"], 5)
    (tmp_path / "log").rename(tmp_path / "old")
    (tmp_path / "log").write_text("no folder")
    os.kill(table.processes["one"].pid, signal.SIGKILL)
    tick_until(tree, lambda: len(said) == 2)
    assert said[1].startswith("one cannot be started (")
    assert not is_running(table.processes["one"]), "listed, so that its absence shows"
    (tmp_path / "log").unlink()
    tick_until(tree, lambda: any("is back" in line for line in said))
    assert is_running(table.processes["one"])


def test_a_full_disk_keeps_nothing_from_stopping(tree: Tree, table: ProcessTable) -> None:
    for name in ("one", "two"):
        tree.start(sleeper(name))
    identities = list(table.processes.values())
    with tiny_disk(0):
        for name in ("one", "two"):
            tree.stop(name)
    assert not any(map(is_running, identities))
    assert not table.processes


def test_a_child_waits_for_what_it_needs(tree: Tree, table: ProcessTable, said: Lines) -> None:
    database_ready = True
    tree.start(sleeper("database", is_ready=lambda: database_ready))
    tree.start(sleeper("server", "database"))
    tree.wait_ready(["database", "server"], 5)
    database_ready = False
    for name in ("server", "database"):
        os.kill(table.processes[name].pid, signal.SIGKILL)
    tick_until(tree, lambda: len(said) == 2)
    tick_until(tree, lambda: is_running(table.processes["database"]))
    deadline = time.monotonic() + 0.6
    tick_until(tree, lambda: time.monotonic() > deadline)
    assert not is_running(table.processes["server"])
    database_ready = True
    tick_until(tree, lambda: is_running(table.processes["server"]))


def test_a_child_that_dies_before_it_was_ever_ready_fails_the_start(tree: Tree) -> None:
    service = Service("one", ("sh", "-c", "echo my last words; exit 3"), lambda: False)
    tree.start(service)
    with pytest.raises(ServiceFailed, match=r"one died 3 times; .* my last words"):
        tree.wait_ready(["one"], 20)


def test_a_child_that_never_becomes_ready_fails_the_start(tree: Tree) -> None:
    tree.start(sleeper("one", is_ready=lambda: False))
    with pytest.raises(ServiceFailed, match="one not ready in 0 s"):
        tree.wait_ready(["one"], 0.2)


def test_stopped_is_gone_from_the_file_and_not_restarted(
    tree: Tree, table: ProcessTable, tmp_path: Path
) -> None:
    tree.start(sleeper("one"))
    tree.wait_ready(["one"], 5)
    identity = table.processes["one"]
    tree.stop("one")
    tree.tick()
    assert not is_running(identity)
    assert read_table(tmp_path / "processes.json") == {}


def test_a_child_that_ignores_its_signal_is_killed_and_said_so(
    tree: Tree, tmp_path: Path, said: Lines
) -> None:
    argv = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    log = tmp_path / "log" / "one.out"
    service = Service("one", argv, lambda: "ready" in log.read_text(), stop_timeout_seconds=0.1)
    tree.start(service)
    tree.wait_ready(["one"], 5)
    tree.stop("one")
    assert said == ["one did not stop in 0 s and was killed"]


def test_stopping_what_was_never_started_is_nothing(
    tree: Tree, table: ProcessTable, said: Lines
) -> None:
    tree.start(sleeper("one"))
    tree.stop("nobody")
    assert list(table.processes) == ["one"]
    assert said == []
