"""The ranks' processes as the process that serves sees them. `group` starts and ends them here, and
learns what became of them.
"""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from worker.engine.messages import Downward, Failed, LogLine, Setup, Upward, dump
from worker.errors import EngineCrashed, PeerLost, WorkerError

EXIT_SECONDS = 1.0  # between the end of the line and that of the process
BLAME_SECONDS = 2.0  # for the rank at fault to be known, once another has lost it


class RankProcess:
    """A child process, and the line to it. `running` and `waiting`: its load as last reported."""

    def __init__(self, number: int, directory: Path, setup: Setup) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(directory), str(theirs.fileno())]
            command = [sys.executable, "-m", "worker.engine.rank", *arguments]
            with _signals_held():
                self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self.connection = Connection(ours.detach())
        self.number = number
        self.running = 0
        self.waiting = 0
        self.send(setup)

    def send(self, message: Downward | Setup) -> None:
        """Does not tell whether it arrived: that a rank is dead is heard."""
        with suppress(OSError):
            self.connection.send_bytes(dump(message))

    def hear(self) -> Upward:
        """The next message; after the last, how the process has ended."""
        try:
            message: Upward = self.connection.recv()
        except (EOFError, OSError):
            return Failed(EngineCrashed(self._ending()))
        return message

    def end(self, grace_seconds: float = 0.0) -> None:
        """Let the process end by itself for so long, then kill it."""
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ending(self) -> str:
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its line"
        return (
            f"exited with code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        )


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process started here never sees the signals that end the leader, which drains and then says
    stop; they may be sent to the whole process group, and while Python is still starting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heard(
    ranks: Iterable[RankProcess], timeout_seconds: float | None = None
) -> list[tuple[RankProcess, Upward]]:
    """A message of each rank that has one, waiting for the first so long. Log lines are written
    here."""
    by_connection = {rank.connection: rank for rank in ranks}
    speaking = [by_connection[c] for c in wait(by_connection, timeout_seconds)]  # type: ignore
    messages = [(rank, rank.hear()) for rank in speaking]
    for rank, message in messages:
        if isinstance(message, LogLine):
            _write(rank, message)
    return messages


def blame(ranks: Iterable[RankProcess], first: RankProcess, error: WorkerError) -> str:
    """Why a group ends of which rank `first` was the first to fail. A rank that has only lost
    another is not at fault: the one that fails otherwise is, or the one that says nothing."""
    silent = {rank.number: rank for rank in ranks if rank is not first}
    at_fault = first
    deadline = time.monotonic() + BLAME_SECONDS
    while isinstance(error, PeerLost) and silent:
        left_seconds = deadline - time.monotonic()
        if left_seconds < 0:
            names = ", ".join(map(str, silent))
            return f"rank {names} does not answer the others ({error})"
        for rank, message in heard(silent.values(), left_seconds):
            if isinstance(message, Failed):
                del silent[rank.number]
                if isinstance(error, PeerLost):
                    at_fault, error = rank, message.error
    return f"rank {at_fault.number}: {error}"


def _write(rank: RankProcess, line: LogLine) -> None:
    record = logging.makeLogRecord(line.record)
    record.fields = {**getattr(record, "fields", {}), "rank": rank.number}
    logging.getLogger(record.name).handle(record)
