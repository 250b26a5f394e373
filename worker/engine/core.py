"""The step loop: schedule, run, update. One thread owns scheduler and runner; the client talks to
it through a queue."""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from worker.batch import Batch, SequenceOutput
from worker.metrics import EngineMetrics
from worker.request import Request
from worker.scheduler import Progress, Scheduler

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """Computes a batch on the device."""

    def execute(self, batch: Batch) -> list[SequenceOutput]: ...


@dataclass(frozen=True, slots=True)
class _Submit:
    request: Request


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


class EngineCore:
    """`on_progress` and `on_crash` are called on the engine's thread."""

    def __init__(self, scheduler: Scheduler, runner: Runner, metrics: EngineMetrics) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._metrics = metrics
        self._commands: queue.SimpleQueue[_Submit | _Abort | _Stop] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> int:
        """Requests that hold a state slot; may be a step old."""
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        """Requests that wait for room; may be a step old."""
        return self._scheduler.waiting

    def start(
        self,
        on_progress: Callable[[list[Progress]], None],
        on_crash: Callable[[Exception], None],
    ) -> None:
        """Run the loop in its own thread until `stop`."""
        self._thread = threading.Thread(
            target=self._run, args=(on_progress, on_crash), name="engine", daemon=True
        )
        self._thread.start()

    def submit(self, request: Request) -> None:
        self._commands.put(_Submit(request))

    def abort(self, request_id: str) -> None:
        self._commands.put(_Abort(request_id))

    def stop(self) -> None:
        """End the loop after the step in flight and wait for its thread."""
        self._commands.put(_Stop())
        if self._thread is not None:
            self._thread.join()

    def _run(
        self,
        on_progress: Callable[[list[Progress]], None],
        on_crash: Callable[[Exception], None],
    ) -> None:
        try:
            while self._take_commands():
                for advance in (self._scheduler.expire, self._step):
                    progress = advance()
                    self._observe()
                    if progress:
                        on_progress(progress)
        except Exception as error:
            logger.exception("the engine's step loop has crashed")
            on_crash(error)

    def _step(self) -> list[Progress]:
        batch = self._scheduler.schedule()
        if batch is None:
            return []
        outputs = self._runner.execute(batch)
        self._metrics.steps.inc()
        self._metrics.step_tokens.inc(batch.token_count)
        for sequence, output in zip(batch.sequences, outputs, strict=True):
            if sequence.draft_count:
                self._metrics.drafted(sequence.draft_count, max(0, len(output.tokens) - 1))
        return self._scheduler.update(outputs)

    def _take_commands(self) -> bool:
        """Apply what has been asked since the last step; waits when there is nothing to run.
        False: stop."""
        wait = not (self._scheduler.running or self._scheduler.waiting)
        while wait or not self._commands.empty():
            match self._commands.get():
                case _Submit(request):
                    self._scheduler.add(request)
                case _Abort(request_id):
                    self._scheduler.abort(request_id)
                case _Stop():
                    return False
            wait = False
        return True

    def _observe(self) -> None:
        self._metrics.running.set(self._scheduler.running)
        self._metrics.waiting.set(self._scheduler.waiting)
        self._metrics.page_usage.set(self._scheduler.page_usage)
        self._metrics.preemptions.inc(self._scheduler.take_preemptions())
