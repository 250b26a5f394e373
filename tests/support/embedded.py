"""Runs one embedded server for as long as a test needs it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.processes.process import Identity, identify, spawn, stop


@contextmanager
def running(
    argv: list[str], is_ready: Callable[[], bool], stop_signal: signal.Signals, log_file: Path
) -> Iterator[Identity]:
    """Start a server, wait until it is ready, stop it in the end."""
    recorded: list[Identity] = []
    process = spawn(argv, record=recorded.append, log_file=log_file)
    deadline = time.monotonic() + 30
    try:
        while not is_ready():
            assert process.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.02)
        yield recorded[0]
    finally:
        identity = identify(process.pid)
        if identity is not None:
            stop(identity, stop_signal, 10)
        process.wait()
