"""Child processes that can be told from strangers, even by the next supervisor.

A pid alone is reused; a pid with the kernel's start time and the boot it belongs to is not. A child
waits at a gate until its identity has been recorded: if the supervisor dies before that, the gate's
pipe closes and the child exits without having run. Called by whoever keeps
processes: the supervisor, the kubelet of one machine, the fixtures of tests.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

GATE = 'read -r go && exec "$@" </dev/null'
LOG_LIMIT_BYTES = 10_000_000


@dataclass(frozen=True)
class Identity:
    """One process of one boot of this machine; `start_time` is in clock ticks since that boot."""

    pid: int
    start_time: int
    boot_id: str


def identify(pid: int) -> Identity | None:
    """Return the identity of a running process, or None when there is none (a zombie is none)."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]), _boot_id())


def is_running(identity: Identity) -> bool:
    """Return whether this very process still runs."""
    return identify(identity.pid) == identity


def is_frozen(identity: Identity) -> bool:
    """Return whether this process is there, but a signal such as SIGSTOP keeps it from running."""
    fields = _stat(identity.pid)
    return fields is not None and fields[0] in "Tt" and is_running(identity)


def ask_to_end(identity: Identity, stop_signal: signal.Signals) -> None:
    """Send a running process the signal that ends it, and wake it: frozen, it would not notice."""
    for number in (stop_signal, signal.SIGCONT):
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            return


def uptime_seconds(identity: Identity) -> float:
    """Return how long ago the process was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_time / os.sysconf("SC_CLK_TCK")


def spawn(
    argv: Sequence[str],
    *,
    record: Callable[[Identity], None],
    log_file: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` in its own process group; it runs only after `record` has returned.

    Args:
        argv: the program and its arguments; the child's pid is the program's pid.
        record: keeps the child's identity where the next supervisor finds it.
        log_file: where its standard output and error are appended; owner-only.
        environment: the whole environment; None inherits ours.
    """
    with _open_log(log_file) as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", GATE, argv[0], *argv],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    identity = identify(process.pid)
    assert identity is not None, "an unreaped child at the gate is alive"
    try:
        with process.stdin:
            record(identity)
            process.stdin.write(b"go\n")
    except BaseException:
        process.wait()
        raise
    return process


def stop(identity: Identity, stop_signal: signal.Signals, timeout_seconds: float) -> bool:
    """Ask a process to end, then kill its group; return whether it ended on its own.

    Works for children and for orphans of an earlier supervisor alike.
    """
    if not is_running(identity):
        return True
    ask_to_end(identity, stop_signal)
    if wait_gone(identity, timeout_seconds):
        return True
    try:
        os.killpg(identity.pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    wait_gone(identity, 5)
    return False


def wait_gone(identity: Identity, timeout_seconds: float) -> bool:
    """Wait until the process has ended; return False when the deadline came first."""
    deadline = time.monotonic() + timeout_seconds
    while is_running(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def bound_log(log_file: Path) -> None:
    """Put a long log aside, in place of the one before it; whoever appends to it goes on."""
    with suppress(OSError):  # no log yet, or none that can be bounded: nothing to stop for
        if log_file.stat().st_size <= LOG_LIMIT_BYTES:
            return
        with suppress(OSError):  # on a full disk, room is worth more than an old log
            shutil.copy(log_file, log_file.with_suffix(".1.log"))
        os.truncate(log_file, 0)


def _stat(pid: int) -> list[str] | None:
    """Return what the kernel tells of a process from its state on; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold spaces and parentheses; the fields after the last one are plain.
    return stat.rpartition(")")[2].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _open_log(log_file: Path) -> IO[bytes]:
    log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    bound_log(log_file)
    return open(os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
