import logging
import os
import pty
import subprocess
import sys

import pytest

from worker.model.progress import LINE_SECONDS, reported


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_short_load_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), reported(10**9, clock) as advance:
        clock.seconds = LINE_SECONDS - 1
        advance(10**9)
    assert not caplog.messages


def test_a_long_load_logs_a_line_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), reported(40 * 10**9, clock) as advance:
        for _ in range(8):
            clock.seconds += LINE_SECONDS / 2
            advance(5 * 10**9)
    assert caplog.messages == [
        "loaded 10.0 of 40.0 GB at 1.00 GB/s",
        "loaded 20.0 of 40.0 GB at 1.00 GB/s",
        "loaded 30.0 of 40.0 GB at 1.00 GB/s",
        "loaded 40.0 of 40.0 GB at 1.00 GB/s",
    ]


def test_a_terminal_shows_a_bar() -> None:
    load = (
        "from worker.model.progress import reported\n"
        "with reported(4_000_000) as advance: advance(1_000_000)"
    )
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", load], stderr=theirs, check=True, timeout=30)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "loading" in shown
    assert "1.0/4.0 MB" in shown
