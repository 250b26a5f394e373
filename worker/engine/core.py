"""The step loop: schedule, run, update. One thread owns scheduler and runner; the client talks to
it through a queue.

Ranks that share experts step together: a forward needs all of them, so before each step all agree
whether any has work. One without runs an empty batch; when none has any, all sleep. What could
leave one asleep and another in a forward is a request still on its way to a third. So every wake-up
is sent to every rank and counted, and a rank sleeps only until it has seen one more than the
newest that any had seen when all were out of work.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from worker.batch import Batch, SequenceOutput
from worker.metrics import EngineMetrics
from worker.parallel.groups import ALONE, ExpertGroup
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
class _Wake:
    pass


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


OnProgress = Callable[[list[Progress]], None]


class EngineCore:
    """One rank of `group`. `on_progress` and `on_crash` are called on the engine's thread, the
    former after every step, whether it brought anything or not, and before every sleep."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        metrics: EngineMetrics,
        group: ExpertGroup = ALONE,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._metrics = metrics
        self._group = group
        self._commands: queue.SimpleQueue[_Submit | _Abort | _Wake | _Stop] = queue.SimpleQueue()
        self._wake_ups = 0  # submissions and wakes seen; all ranks of a group count the same ones
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> int:
        """Requests that hold a state slot; may be a step old."""
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        """Requests that wait for room; may be a step old."""
        return self._scheduler.waiting

    def start(self, on_progress: OnProgress, on_crash: Callable[[Exception], None]) -> None:
        """Run the loop in its own thread until `stop`."""

        def run() -> None:
            try:
                self.run(on_progress)
            except Exception as error:
                logger.exception("the engine's step loop has crashed")
                on_crash(error)

        self._thread = threading.Thread(target=run, name="engine", daemon=True)
        self._thread.start()

    def run(self, on_progress: OnProgress) -> None:
        """The loop itself, until this or another rank is told to stop. Raises PeerLost and
        whatever a forward raises."""
        while self._await_work(on_progress):
            for advance in (self._scheduler.expire, self._step):
                progress = advance()
                self._observe()
                on_progress(progress)

    def submit(self, request: Request) -> None:
        self._commands.put(_Submit(request))

    def abort(self, request_id: str) -> None:
        self._commands.put(_Abort(request_id))

    def wake(self) -> None:
        """Another rank of the group has been given a request."""
        self._commands.put(_Wake())

    def stop(self) -> None:
        """End the loop after the step in flight and wait for its thread."""
        self._commands.put(_Stop())
        if self._thread is not None:
            self._thread.join()

    def _await_work(self, on_progress: OnProgress) -> bool:
        """Apply what has been asked since the last step, and sleep while no rank has anything to
        run. False: stop."""
        while True:
            while not self._commands.empty():
                self._apply(self._commands.get())
            working = self._scheduler.running or self._scheduler.waiting
            ranks = self._group.gather([bool(working), self._wake_ups, self._stopping])
            anyone_works, wake_ups, anyone_stops = zip(*ranks, strict=True)
            if any(anyone_stops):
                return False
            if any(anyone_works):
                return True
            self._observe()
            on_progress([])
            newest = max(wake_ups)
            everyone_saw_it = min(wake_ups) == newest
            while self._wake_ups < newest + everyone_saw_it:
                self._apply(self._commands.get())

    def _apply(self, command: _Submit | _Abort | _Wake | _Stop) -> None:
        match command:
            case _Submit(request):
                self._scheduler.add(request)
            case _Abort(request_id):
                self._scheduler.abort(request_id)
                return  # leaves less to do, so nobody need wake for it
            case _Stop():
                self._stopping = True
        self._wake_ups += 1

    def _step(self) -> list[Progress]:
        batch = self._scheduler.schedule()
        if batch is None:
            if self._group.size > 1:
                self._runner.execute(Batch([]))
            return []
        outputs = self._runner.execute(batch)
        self._metrics.steps.inc()
        self._metrics.step_tokens.inc(batch.token_count)
        for sequence, output in zip(batch.sequences, outputs, strict=True):
            if sequence.draft_count:
                self._metrics.drafted(sequence.draft_count, max(0, len(output.tokens) - 1))
        return self._scheduler.update(outputs)

    def _observe(self) -> None:
        self._metrics.running.set(self._scheduler.running)
        self._metrics.waiting.set(self._scheduler.waiting)
        self._metrics.page_usage.set(self._scheduler.page_usage)
        self._metrics.preemptions.inc(self._scheduler.take_preemptions())
