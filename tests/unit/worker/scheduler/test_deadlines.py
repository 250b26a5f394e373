from support.paper_runner import PaperRunner

from worker.cache.manager import CacheManager
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Scheduler

PAGE = 4


class Clock:
    """A time that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def scheduler(clock: Clock, *, sequences: int = 8) -> Scheduler:
    return Scheduler(
        CacheManager(pages=64, state_slots=16, snapshots=4, page_tokens=PAGE),
        max_sequences=sequences,
        max_batch_tokens=16,
        max_model_len=64,
        clock=clock,
    )


def request(name: str, *, deadline: float | None = None) -> Request:
    return Request(name, [1, 2, 3, 4, 5], SamplingParams(max_tokens=40), deadline=deadline)


def step(s: Scheduler, runner: PaperRunner) -> None:
    batch = s.schedule()
    assert batch is not None
    s.update(runner.execute(batch))


def test_a_running_request_expires_and_leaves_its_pages() -> None:
    clock, runner = Clock(), PaperRunner(PAGE)
    s = scheduler(clock)
    late, other = request("late", deadline=5.0), request("other")
    s.add(late)
    s.add(other)
    for _ in range(3):
        step(s, runner)
    clock.now = 5.0
    ended = [(p.request, p.finish_reason) for p in s.expire()]
    s.check()
    assert ended == [(late, FinishReason.DEADLINE)]
    assert len(late.output_token_ids) == 2  # the first step ended on a page boundary
    assert (s.running, late.pages) == (1, [])


def test_a_waiting_request_expires_without_being_computed() -> None:
    clock, runner = Clock(), PaperRunner(PAGE)
    s = scheduler(clock, sequences=1)
    s.add(request("runs"))
    s.add(request("waits", deadline=1.0))
    step(s, runner)
    clock.now = 1.5
    assert [p.request.request_id for p in s.expire()] == ["waits"]
    assert s.waiting == 0
    assert "waits" not in runner.computed_tokens


def test_nothing_expires_early_or_twice() -> None:
    clock = Clock()
    s = scheduler(clock)
    s.add(request("a", deadline=2.0))
    clock.now = 1.9
    assert s.expire() == []
    clock.now = 9.0
    assert len(s.expire()) == 1
    assert s.expire() == []


def test_a_finished_request_has_no_deadline_left() -> None:
    clock, runner = Clock(), PaperRunner(PAGE)
    s = scheduler(clock)
    s.add(Request("a", [1], SamplingParams(max_tokens=1), deadline=2.0))
    step(s, runner)
    clock.now = 9.0
    assert s.expire() == []
    s.check()
