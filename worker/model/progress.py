"""Tells the operator how far a long load or fetch is: `loader` and `weights.fetch` wrap theirs."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

LINE_SECONDS = 10.0
log = logging.getLogger(__name__)
Advance = Callable[[int], None]


@contextmanager
def reported(
    total_bytes: int,
    clock: Callable[[], float] = time.monotonic,
    *,
    shown: bool = True,
    doing: str = "loading",
    done: str = "loaded",
) -> Iterator[Advance]:
    """A function to call with the bytes done since the last call: a bar where stderr is a
    terminal, else a log line every ten seconds; a load shorter than that logs nothing. Nothing at
    all unless `shown`."""
    if not shown:
        yield lambda count: None
    elif sys.stderr.isatty():
        columns = (BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
        with Progress(doing, *columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(doing, total=total_bytes)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Lines(total_bytes, clock, done).advance


class _Lines:
    """Counts bytes and logs now and then."""

    def __init__(self, total_bytes: int, clock: Callable[[], float], done: str) -> None:
        self._verb = done
        self._total_bytes = total_bytes
        self._clock = clock
        self._done_bytes = 0
        self._started = self._told = clock()

    def advance(self, count: int) -> None:
        self._done_bytes += count
        now = self._clock()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        gb_per_s = self._done_bytes / 1e9 / (now - self._started)
        log.info(
            "%s %.1f of %.1f GB at %.2f GB/s",
            self._verb,
            self._done_bytes / 1e9,
            self._total_bytes / 1e9,
            gb_per_s,
        )
