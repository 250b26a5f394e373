"""Processes by identity: the gate, deaths, stopping."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.processes.process import (
    Identity,
    bound_log,
    identify,
    is_frozen,
    is_running,
    spawn,
    stop,
    uptime_seconds,
    wait_gone,
)

IGNORE_TERM = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def start(argv: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], Identity]:
    recorded: list[Identity] = []
    process = spawn(argv, record=recorded.append, log_file=folder / "child.log")
    assert [identity.pid for identity in recorded] == [process.pid]
    return process, recorded[0]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_identity_survives_the_gate(tmp_path: Path) -> None:
    process, identity = start(["sleep", "60"], tmp_path)
    eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    assert identify(process.pid) == identity
    assert stop(identity, signal.SIGTERM, 5)
    process.wait()


def test_another_start_time_is_another_process(tmp_path: Path) -> None:
    process, identity = start(["sleep", "60"], tmp_path)
    assert is_running(identity)
    assert not is_running(replace(identity, start_time=identity.start_time - 1))
    assert not is_running(replace(identity, boot_id="another boot"))
    stop(identity, signal.SIGTERM, 5)
    process.wait()


def test_a_zombie_does_not_run(tmp_path: Path) -> None:
    process, identity = start(["true"], tmp_path)
    assert wait_gone(identity, 5)
    assert process.wait() == 0


def test_no_process_has_no_identity() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert identify(process.pid) is None


def test_a_child_whose_identity_cannot_be_recorded_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    seen: list[Identity] = []

    def fail(identity: Identity) -> None:
        seen.append(identity)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        spawn(["touch", os.fspath(mark)], record=fail, log_file=tmp_path / "child.log")
    assert wait_gone(seen[0], 5)
    assert not mark.exists()


def test_the_gate_stays_closed_when_the_supervisor_is_killed_before_recording(
    tmp_path: Path,
) -> None:
    mark, pid_file = tmp_path / "ran", tmp_path / "pid"
    program = (
        "import os, pathlib, signal\n"
        "from controlplane.processes.process import spawn\n"
        "def record(identity):\n"
        f"    pathlib.Path({os.fspath(pid_file)!r}).write_text(str(identity.pid))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"spawn(['touch', {os.fspath(mark)!r}], record=record,"
        f" log_file=pathlib.Path({os.fspath(tmp_path / 'log')!r}))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    pid = int(pid_file.read_text())
    eventually(lambda: identify(pid) is None)
    assert not mark.exists()


def test_a_child_has_its_own_group_and_a_private_log(tmp_path: Path) -> None:
    process, identity = start(["sh", "-c", "echo to the log; echo and this >&2"], tmp_path)
    assert wait_gone(identity, 5)
    process.wait()
    log = tmp_path / "child.log"
    assert log.read_text() == "to the log\nand this\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_stubborn_process_and_its_children_are_killed(tmp_path: Path) -> None:
    process, identity = start(["sh", "-c", IGNORE_TERM], tmp_path)
    eventually(lambda: "ready" in (tmp_path / "child.log").read_text())
    assert not stop(identity, signal.SIGTERM, 0.1)
    assert process.wait() == -signal.SIGKILL


def test_a_frozen_process_is_told_from_a_running_one_and_ends_when_asked(tmp_path: Path) -> None:
    process, identity = start(["sleep", "60"], tmp_path)
    assert not is_frozen(identity)
    os.kill(identity.pid, signal.SIGSTOP)
    eventually(lambda: is_frozen(identity))
    assert is_running(identity)
    assert stop(identity, signal.SIGTERM, 5)
    process.wait()
    assert not is_frozen(identity)


def test_uptime_begins_with_the_process(tmp_path: Path) -> None:
    process, identity = start(["sleep", "60"], tmp_path)
    assert 0 <= uptime_seconds(identity) < 5
    stop(identity, signal.SIGTERM, 5)
    process.wait()


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * 10_000_001)
    process, identity = start(["echo", "new"], tmp_path)
    assert wait_gone(identity, 5)
    process.wait()
    assert log.read_text() == "new\n"
    assert (tmp_path / "child.1.log").stat().st_size == 10_000_001


def test_a_log_that_grew_is_put_aside_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    writer = "head -c 10000001 /dev/zero; echo; trap 'echo more' USR1; while :; do sleep 0.02; done"
    process, identity = start(["sh", "-c", writer], tmp_path)
    eventually(lambda: log.stat().st_size > 10_000_001)
    bound_log(log)
    assert (tmp_path / "child.1.log").stat().st_size == 10_000_002
    assert (tmp_path / "child.1.log").stat().st_mode & 0o777 == 0o600
    eventually(lambda: b"trap" not in Path(f"/proc/{process.pid}/stat").read_bytes())
    os.kill(process.pid, signal.SIGUSR1)
    eventually(lambda: log.read_text() == "more\n")
    stop(identity, signal.SIGKILL, 5)
    process.wait()
