"""Ranks that share the experts of one model, as one engine: the surface of `EngineCore`, for
`EngineClient`, over a child process per rank.

Two threads: one takes what the client asks, decides which rank it is for and sends it; the other
hears all ranks. A rank that fails or dies takes the others with it: without its experts no forward
can end. The ranks hold nothing worth saving, so they are killed.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.config import EngineConfig, ModelConfig
from worker.engine.core import OnProgress
from worker.engine.messages import Abort, Begin, Failed, Ready, Report, Setup, Stop, Submit, Wake
from worker.engine.placement import Placement
from worker.engine.rank_process import RankProcess, blame, heard
from worker.errors import EngineCrashed, PeerLost
from worker.metrics import EngineMetrics
from worker.parallel.groups import Seat, meeting_point
from worker.request import FinishReason, Request
from worker.scheduler import Progress

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0  # for the step in flight, then the ranks are killed


@dataclass(frozen=True, slots=True)
class _Active:
    request: Request
    rank: int


class EngineGroup:
    """`on_progress` and `on_crash` are called on a thread of the group's own."""

    def __init__(
        self, directory: Path, model: ModelConfig, engine: EngineConfig, metrics: EngineMetrics
    ) -> None:
        """Start the ranks and wait until all have loaded. Raises what keeps one from it."""
        self._metrics = metrics
        self._placement = Placement(
            page_tokens=model.page_tokens,
            model_revision=str(directory.resolve()),
            pages=engine.ep_size * engine.pages,
            full_at=engine.max_sequences,
        )
        self._commands: queue.SimpleQueue[Request | Abort | Stop] = queue.SimpleQueue()
        self._active: dict[str, _Active] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._store = meeting_point()  # must outlive the ranks' coming together
        self._ranks: list[RankProcess] = []
        try:
            for number in range(engine.ep_size):
                setup = _setup(engine, number, self._store.port)
                self._ranks.append(RankProcess(number, directory, setup))
                metrics.absorb(number, {})  # it counts in a mean before it has reported
            self._await_ready()
        except BaseException:
            self._end_ranks()
            raise

    @property
    def running(self) -> int:
        """Requests that hold a state slot on any rank; may be a step old."""
        return sum(rank.running for rank in self._ranks)

    @property
    def waiting(self) -> int:
        """Requests that wait for room on any rank; may be a step old."""
        return sum(rank.waiting for rank in self._ranks)

    def start(self, on_progress: OnProgress, on_crash: Callable[[Exception], None]) -> None:
        """Let the ranks step until `stop`."""
        for rank in self._ranks:
            rank.send(Begin())
        self._threads = [
            threading.Thread(target=self._tell, name="tell ranks", daemon=True),
            threading.Thread(
                target=self._listen, args=(on_progress, on_crash), name="hear ranks", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request) -> None:
        self._commands.put(request)

    def abort(self, request_id: str) -> None:
        self._commands.put(Abort(request_id))

    def stop(self) -> None:
        """End all ranks after the step in flight, and wait for them."""
        self._stopping = True
        self._commands.put(Stop())
        self._end_ranks(STOP_SECONDS if self._threads else 0.0)
        for thread in self._threads:
            thread.join()

    def _await_ready(self) -> None:
        loading = {rank.number: rank for rank in self._ranks}
        while loading:
            for rank, message in heard(self._ranks):
                match message:
                    case Ready():
                        del loading[rank.number]
                    case Failed(PeerLost() | EngineCrashed() as error):
                        raise EngineCrashed(f"while loading, {blame(self._ranks, rank, error)}")
                    case Failed(error):
                        raise error

    def _end_ranks(self, grace_seconds: float = 0.0) -> None:
        deadline = time.monotonic() + grace_seconds
        for rank in self._ranks:
            rank.end(max(0.0, deadline - time.monotonic()))

    def _tell(self) -> None:
        """Hand on what the client asks. What becomes of it is for `_listen`."""
        while True:
            match self._commands.get():
                case Stop():
                    for rank in self._ranks:
                        rank.send(Stop())
                    return
                case Abort(request_id):
                    active = self._active.pop(request_id, None)
                    if active is not None:
                        active.request.finish_reason = FinishReason.ABORTED
                        self._ranks[active.rank].send(Abort(request_id))
                case request:
                    self._place(request)

    def _place(self, request: Request) -> None:
        counts = Counter(active.rank for active in list(self._active.values()))
        chosen = self._placement.choose(request, [counts[rank.number] for rank in self._ranks])
        self._active[request.request_id] = _Active(request, chosen)
        for rank in self._ranks:
            # Every rank is told of every request: see `worker.engine.core`.
            rank.send(Submit(request) if rank.number == chosen else Wake())

    def _listen(self, on_progress: OnProgress, on_crash: Callable[[Exception], None]) -> None:
        speaking = list(self._ranks)
        while speaking:
            for rank, message in heard(speaking):
                match message:
                    case Report():
                        on_progress(self._take(rank, message))
                    case Failed() if self._stopping:
                        speaking.remove(rank)
                    case Failed(error):
                        reason = blame(self._ranks, rank, error)
                        logger.error("%s; all ranks end with it", reason)
                        self._end_ranks()
                        on_crash(EngineCrashed(reason))
                        return

    def _take(self, rank: RankProcess, report: Report) -> list[Progress]:
        """The report's results, of requests that are still wanted."""
        rank.running, rank.waiting = report.running, report.waiting
        if report.samples is not None:
            self._metrics.absorb(rank.number, report.samples)
        progress = []
        for step in report.steps:
            active = self._active.get(step.request_id)
            if active is not None:
                progress.append(step.onto(active.request))
                if step.finish_reason is not None:
                    self._active.pop(step.request_id, None)
        return progress


def _setup(engine: EngineConfig, rank: int, port: int) -> Setup:
    return Setup(
        engine=engine,
        seat=Seat(rank, engine.ep_size, port, engine.ep_timeout_seconds),
        threads=torch.get_num_threads(),
        log_level=logging.getLogger().getEffectiveLevel(),
    )
