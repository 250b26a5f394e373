"""The process of one rank: its share of the experts, a cache and a scheduler of its own.

`worker.engine.group` starts it as `python -m worker.engine.rank DIRECTORY FD` and talks to it over
that file descriptor. It lives exactly as long as the other end is open: whoever serves may die of
anything, and no rank is left behind.
"""

import gc
import logging
import os
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from worker.encoding.grammar import AnswerForm, AnswerGrammar, GrammarCompiler
from worker.encoding.tokenizer import Tokenizer
from worker.engine.build import build_core
from worker.engine.core import EngineCore
from worker.engine.messages import (
    Abort,
    Begin,
    Downward,
    Failed,
    LogLine,
    Ready,
    Report,
    Setup,
    Step,
    Stop,
    Submit,
    Upward,
    Wake,
    load,
)
from worker.errors import EngineCrashed, WorkerError
from worker.metrics import EngineMetrics
from worker.parallel.groups import join, take_gpu
from worker.scheduler import Progress

logger = logging.getLogger(__name__)

SAMPLES_SECONDS = 0.25  # between two reports of the metrics


class Leader:
    """The process that serves, as a rank sees it. Any thread may tell it something."""

    def __init__(self, connection: Connection, grammars: "Grammars") -> None:
        self._connection = connection
        self._grammars = grammars
        self._writing = threading.Lock()

    def tell(self, message: Upward) -> None:
        # A leader that has gone ends this process through `hear`.
        with self._writing, suppress(OSError):
            self._connection.send(message)

    def hear(self) -> Any:
        """The next message. Raises EOFError when the leader has gone."""
        try:
            written = self._connection.recv_bytes()
        except OSError as error:
            raise EOFError from error
        return load(written, self._grammars.build)


class Grammars:
    """Builds grammars anew. The tokenizer takes seconds to load, beside the weights."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = tokenizer
        self._compiler: Future[GrammarCompiler] = Future()
        threading.Thread(target=self._load, daemon=True).start()

    def build(self, form: AnswerForm) -> AnswerGrammar:
        """The grammar of `form`. Raises ConfigError: there is no tokenizer."""
        return self._compiler.result().build(form)

    def _load(self) -> None:
        try:
            self._compiler.set_result(GrammarCompiler(Tokenizer(self._tokenizer)))
        except WorkerError as error:
            self._compiler.set_exception(error)


class _LogToLeader(QueueHandler):
    """One process writes the log, so that its file can be rotated."""

    def __init__(self, leader: Leader) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._leader = leader

    def enqueue(self, record: logging.LogRecord) -> None:
        self._leader.tell(LogLine(record.__dict__))


class _Reporter:
    """Tells the leader what every step brought, and now and then the metrics."""

    def __init__(self, leader: Leader, core: EngineCore, metrics: EngineMetrics) -> None:
        self._leader = leader
        self._core = core
        self._metrics = metrics
        self._told = (0, 0)
        self._samples_due = 0.0

    def __call__(self, progress: list[Progress]) -> None:
        load, now = (self._core.running, self._core.waiting), time.monotonic()
        idle = load == (0, 0)
        due = idle or now >= self._samples_due
        if not progress and load == self._told and (idle or not due):
            return
        samples = None
        if due:
            samples = self._metrics.samples()
            self._samples_due = now + SAMPLES_SECONDS
        self._told = load
        self._leader.tell(Report([Step.of(p) for p in progress], *load, samples))


def main(directory: Path, descriptor: int) -> int:
    """Load, and step until told to stop. Returns the exit code."""
    leader = Leader(Connection(descriptor), Grammars(directory / "tokenizer.json"))
    setup: Setup = leader.hear()
    logging.basicConfig(level=setup.log_level, handlers=[_LogToLeader(leader)], force=True)
    built: Future[EngineCore] = Future()
    begun = threading.Event()
    threading.Thread(target=_obey, args=(leader, built, begun), daemon=True).start()
    try:
        torch.set_num_threads(setup.threads)
        metrics = EngineMetrics("")
        core = _build(directory, setup, metrics)
        gc.freeze()  # what is loaded stays: no step has to wait until all of it is looked through
        built.set_result(core)
        leader.tell(Ready())
        begun.wait()
        core.run(_Reporter(leader, core, metrics))
    except Exception as error:
        leader.tell(_failure(error))
        return 1
    return 0


def _build(directory: Path, setup: Setup, metrics: EngineMetrics) -> EngineCore:
    if setup.engine.device == "cuda":
        take_gpu(setup.seat.rank)
    group = join(setup.seat, setup.engine.device)
    return build_core(directory, setup.engine, metrics, group)


def _obey(leader: Leader, built: Future[EngineCore], begun: threading.Event) -> None:
    """Hand on what the leader says; without a leader, end the process at once."""
    try:
        while True:
            message: Downward = leader.hear()
            core = built.result()
            match message:
                case Begin():
                    begun.set()
                case Submit(request):
                    core.submit(request)
                case Wake():
                    core.wake()
                case Abort(request_id):
                    core.abort(request_id)
                case Stop():
                    core.stop()
    except EOFError:
        os._exit(0)  # from a thread, and out of any collective
    except Exception as error:
        leader.tell(_failure(error))
        os._exit(1)


def _failure(error: Exception) -> Failed:
    if isinstance(error, WorkerError):
        return Failed(error)
    logger.error("a rank has crashed", exc_info=error)
    return Failed(
        EngineCrashed(f"{type(error).__name__} in its step loop; its log line tells where")
    )


if __name__ == "__main__":
    os._exit(
        main(Path(sys.argv[1]), int(sys.argv[2]))
    )  # an orderly end of Python and torch takes seconds
