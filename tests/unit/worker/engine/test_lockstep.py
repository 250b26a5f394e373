"""Ranks step together: nobody sleeps while another waits for it in a forward.

Engine cores in threads agree through real collectives, over schedulers and caches of their own and
a runner without a model whose forward, like experts apart, needs all ranks.
"""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from support.expert_ranks import ranks
from support.paper_runner import PaperRunner, next_token
from support.polling import until

from worker.batch import Batch, SequenceOutput
from worker.cache.manager import CacheManager
from worker.engine.core import EngineCore
from worker.errors import PeerLost
from worker.metrics import EngineMetrics
from worker.parallel.groups import ExpertGroup
from worker.request import Request, SamplingParams
from worker.scheduler import Progress, Scheduler

SIZE = 3
PAGE_TOKENS = 8


class CompanyRunner(PaperRunner):
    """Every forward is one of all ranks: they exchange its number."""

    def __init__(self, group: ExpertGroup) -> None:
        super().__init__(PAGE_TOKENS)
        self.group = group

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        outputs = super().execute(batch)
        assert self.group.gather([self.forward_count]) == [[self.forward_count]] * self.group.size
        return outputs


@dataclass
class RankInThread:
    """An engine core, and the way to it: a queue whose messages take their time."""

    core: EngineCore
    scheduler: Scheduler
    runner: CompanyRunner
    errors: list[Exception] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    news: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False
    line: "queue.SimpleQueue[Callable[[], None] | None]" = field(default_factory=queue.SimpleQueue)

    def run(self) -> None:
        try:
            self.core.run(self._on_progress)
        except PeerLost as error:
            self.errors.append(error)
        self.ended = True

    def deliver(self, seed: int) -> None:
        """Hand on what is on the line, in order, each a random moment later."""
        delays = random.Random(seed)
        while (message := self.line.get()) is not None:
            time.sleep(delays.choice([0, 0, 0, 0.001, 0.004]))
            message()

    def _on_progress(self, progress: list[Progress]) -> None:
        with self.news:
            self.finished |= {p.request.request_id for p in progress if p.finish_reason is not None}
            self.news.notify_all()

    def await_end(self, name: str) -> None:
        with self.news:
            assert self.news.wait_for(lambda: name in self.finished, timeout=5)


class Leader:
    """Sends requests as `EngineGroup` does."""

    def __init__(self, members: list[RankInThread]) -> None:
        self.members = members

    def submit(self, rank: int, request: Request) -> None:
        for number, member in enumerate(self.members):
            core = member.core
            message = (lambda c=core: c.submit(request)) if number == rank else core.wake
            member.line.put(message)

    def abort(self, rank: int, request_id: str) -> None:
        core = self.members[rank].core
        self.members[rank].line.put(lambda: core.abort(request_id))

    def idle(self) -> bool:
        return not any(m.scheduler.running or m.scheduler.waiting for m in self.members)

    def forwards(self) -> int:
        return sum(m.runner.forward_count for m in self.members)


@contextmanager
def led(seed: int, *, pages: int = 24, max_model_len: int = 64) -> Iterator[Leader]:
    """A group that runs; stopped when left, when no rank may have lost another."""
    with ranks(SIZE, timeout_seconds=5) as together:
        members = together.each(lambda group: member(group, pages, max_model_len))
        leader = Leader(members)
        threads = [threading.Thread(target=m.run) for m in members]
        threads += [
            threading.Thread(target=m.deliver, args=(seed + i,)) for i, m in enumerate(members)
        ]
        for thread in threads:
            thread.start()
        try:
            yield leader
        finally:
            for m in members:
                m.line.put(m.core.stop)
                m.line.put(None)
            for thread in threads:
                thread.join()
        assert [m.errors for m in members] == [[]] * SIZE
        for m in members:
            m.scheduler.check()


def member(group: ExpertGroup, pages: int, max_model_len: int) -> RankInThread:
    cache = CacheManager(pages=pages, state_slots=8, snapshots=8, page_tokens=PAGE_TOKENS)
    scheduler = Scheduler(cache, max_sequences=4, max_batch_tokens=16, max_model_len=max_model_len)
    runner = CompanyRunner(group)
    core = EngineCore(scheduler, runner, EngineMetrics("m"), group)
    return RankInThread(core, scheduler, runner)


def request(name: str, dice: random.Random) -> Request:
    prompt = [dice.randrange(3) for _ in range(dice.randint(1, 40))]
    sampling = SamplingParams(max_tokens=dice.randint(1, 12), seed=dice.randrange(9))
    return Request(name, prompt, sampling)


def answer(asked: Request) -> list[int]:
    tokens = list(asked.prompt_token_ids)
    for _ in range(asked.sampling.max_tokens):
        tokens.append(next_token(tokens, asked.sampling.seed))
    return tokens[len(asked.prompt_token_ids) :]


@pytest.mark.parametrize("seed", range(4))
def test_every_burst_of_requests_and_aborts_wakes_everybody(seed: int) -> None:
    """Nothing follows a burst until it has been served: a wake-up that is lost stays lost."""
    dice = random.Random(seed)
    with led(seed) as leader:
        for burst in range(25):
            wanted: list[tuple[int, Request]] = []
            for i in range(dice.choice([1, 1, 2, 6])):
                rank, asked = dice.randrange(SIZE), request(f"r{burst}-{i}", dice)
                leader.submit(rank, asked)
                if dice.random() < 0.3:
                    leader.abort(rank, asked.request_id)
                else:
                    wanted.append((rank, asked))
            for rank, asked in wanted:
                leader.members[rank].await_end(asked.request_id)
                assert asked.output_token_ids == answer(asked)
            if dice.random() < 0.5:  # else the next burst meets ranks on their way to sleep
                until(leader.idle, seconds=5, what="aborted requests are gone")


def test_a_group_without_work_takes_neither_steps_nor_time() -> None:
    with led(0) as leader:
        leader.submit(1, request("a", random.Random(1)))
        leader.members[1].await_end("a")
        leader.abort(0, "nobody")  # brings no work, so that nobody wakes for it
        until(lambda: leader.members[0].line.empty(), seconds=5, what="the abort is delivered")
        forwards, cpu_seconds = leader.forwards(), time.process_time()
        time.sleep(0.4)
        assert leader.forwards() == forwards
        assert time.process_time() - cpu_seconds < 0.1


def test_when_one_rank_is_told_to_stop_all_end_after_the_same_step() -> None:
    with led(0, pages=600, max_model_len=4000) as leader:
        endless = Request("a", [1], SamplingParams(max_tokens=3900))
        leader.submit(0, endless)
        until(lambda: endless.output_token_ids, seconds=5, what="the request runs")
        leader.members[2].core.stop()
        until(lambda: all(m.ended for m in leader.members), seconds=5, what="all have ended")
    assert endless.finish_reason is None
    assert len({m.runner.forward_count for m in leader.members}) == 1
