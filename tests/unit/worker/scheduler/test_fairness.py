"""What the order of service promises tenants, seen through whole schedules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paper_runner import PaperRunner, next_token

from worker.batch import Batch
from worker.cache.manager import CacheManager
from worker.request import Request, SamplingParams
from worker.scheduler import Scheduler
from worker.scheduler.waiting import OUTPUT_WEIGHT

PAGE = 4
LENGTH = 48


def scheduler(*, pages: int = 256, sequences: int = 8, budget: int = 16) -> Scheduler:
    cache = CacheManager(pages=pages, state_slots=sequences, snapshots=sequences, page_tokens=PAGE)
    return Scheduler(cache, max_sequences=sequences, max_batch_tokens=budget, max_model_len=LENGTH)


def request(
    name: str, tokens: int, *, max_tokens: int = 1, key: str = "", priority: int = 0
) -> Request:
    """A prompt that shares no prefix with another's."""
    prompt = [next_token([*name.encode(), i], 0) for i in range(tokens)]
    sampling = SamplingParams(max_tokens=max_tokens)
    return Request(name, prompt, sampling, priority=priority, fairness_key=key)


def step(s: Scheduler, runner: PaperRunner) -> Batch:
    s.expire()
    batch = s.schedule()
    s.check()
    assert batch is not None
    s.update(runner.execute(batch))
    return batch


def names(batch: Batch) -> set[str]:
    return {x.request_id for x in batch.sequences}


sizes = st.lists(
    st.tuples(st.integers(1, 24), st.integers(1, 8)), min_size=30, max_size=40
)  # prompt and output tokens


@settings(max_examples=60, deadline=None)
@given(a=sizes, b=sizes, sequences=st.integers(1, 6), pages=st.integers(16, 60))
def test_backlogged_keys_get_equal_service(
    a: list[tuple[int, int]], b: list[tuple[int, int]], sequences: int, pages: int
) -> None:
    """While both keys have requests waiting, one that is ahead has none admitted and none of its
    preempted ones let back in before the other's. It was admitted last when it was not ahead, so
    its lead is at most what its running requests may still be served: `sequences` whole ones."""
    s, runner = scheduler(pages=pages, sequences=sequences), PaperRunner(PAGE)
    requests = [
        request(f"{key}{i}", prompt, max_tokens=output, key=key)
        for key, load in (("a", a), ("b", b))
        for i, (prompt, output) in enumerate(load)
    ]
    largest = max(p + OUTPUT_WEIGHT * o for p, o in a + b)
    for r in requests:
        s.add(r)
    furthest: dict[str, int] = {}
    while {r.fairness_key for r in s._waiting} == {"a", "b"}:
        for x in step(s, runner).sequences:
            end = x.start + len(x.token_ids)
            furthest[x.request_id] = max(furthest.get(x.request_id, 0), end)
        served = dict.fromkeys("ab", 0)
        for r in requests:
            done, prompt = furthest.get(r.request_id, 0), len(r.prompt_token_ids)
            served[r.fairness_key] += done + (OUTPUT_WEIGHT - 1) * max(0, done - prompt)
        assert abs(served["a"] - served["b"]) <= sequences * largest


@settings(max_examples=60, deadline=None)
@given(
    flood=st.lists(st.integers(20, 40), min_size=5, max_size=12),
    head_start=st.integers(1, 6),
    short=st.integers(1, 8),
)
def test_a_flood_delays_a_short_prompt_by_one_step(
    flood: list[int], head_start: int, short: int
) -> None:
    s, runner = scheduler(sequences=16, budget=16), PaperRunner(PAGE)
    for i, tokens in enumerate(flood):
        s.add(request(f"flood{i}", tokens, key="flood"))
    for _ in range(min(head_start, len(flood))):
        step(s, runner)
    s.add(request("short", short, key="other"))
    # They are even when it arrives, so one step may still be the flood's.
    assert "short" in names(step(s, runner)) | names(step(s, runner))


def test_a_long_prompt_shares_its_steps_with_others() -> None:
    s, runner = scheduler(budget=8), PaperRunner(PAGE)
    s.add(request("long", 40, key="a"))
    step(s, runner)
    for i in range(6):
        s.add(request(f"other{i}", 8, key="b"))
    shares = {"long": 0, "othe": 0}
    for _ in range(8):
        for x in step(s, runner).sequences:
            shares[x.request_id[:4]] += len(x.token_ids)
    assert shares == {"long": 32, "othe": 32}


@settings(max_examples=60, deadline=None)
@given(
    loads=st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 8), st.sampled_from("ab"), st.integers(0, 1)),
        min_size=1,
        max_size=30,
    ),
    sequences=st.integers(1, 8),
    budget=st.integers(8, 64),
)
def test_no_step_is_wasted(
    loads: list[tuple[int, int, str, int]], sequences: int, budget: int
) -> None:
    """Pages abound: a step leaves budget only when everybody runs, or every place is taken."""
    s, runner = scheduler(sequences=sequences, budget=budget), PaperRunner(PAGE)
    for i, (prompt, output, key, priority) in enumerate(loads):
        s.add(request(f"r{i}", prompt, max_tokens=output, key=key, priority=priority))
    while s.running or s.waiting:
        batch = s.schedule()
        assert batch is not None
        if batch.token_count < budget:
            assert len(batch.sequences) == s.running
            assert s.waiting == 0 or s.running == sequences
        s.update(runner.execute(batch))


@pytest.mark.parametrize("budget", [2, 16])
def test_a_better_priority_takes_a_place_that_is_missing(budget: int) -> None:
    s, runner = scheduler(sequences=2, budget=budget), PaperRunner(PAGE)
    for name, priority in (("bad", 9), ("worse", 10)):
        s.add(request(name, 3, max_tokens=30, priority=priority))
    while s.running < 2 or s.waiting:
        step(s, runner)
    s.add(request("urgent", 3, max_tokens=5))
    step(s, runner)
    step(s, runner)
    assert names(step(s, runner)) == {"bad", "urgent"}
    assert s.take_preemptions() == 1


def test_a_better_priority_takes_no_place_while_there_is_one() -> None:
    s, runner = scheduler(sequences=3), PaperRunner(PAGE)
    for name in ("a", "b"):
        s.add(request(name, 3, max_tokens=30, priority=9))
    step(s, runner)
    s.add(request("urgent", 3, max_tokens=5))
    assert names(step(s, runner)) == {"a", "b", "urgent"}
    for _ in range(4):
        step(s, runner)
    assert s.take_preemptions() == 0


def test_a_better_priority_prefers_a_place_that_came_free() -> None:
    s, runner = scheduler(sequences=2), PaperRunner(PAGE)
    s.add(request("stays", 3, max_tokens=30, priority=9))
    s.add(request("ends", 3, max_tokens=2, priority=9))
    step(s, runner)
    s.add(request("urgent", 3, max_tokens=5))
    step(s, runner)  # no room for it, and one ends
    assert names(step(s, runner)) == {"stays", "urgent"}
    assert s.take_preemptions() == 0


def test_equals_take_no_place_from_each_other() -> None:
    s, runner = scheduler(sequences=1), PaperRunner(PAGE)
    s.add(request("a", 3, max_tokens=20, key="a"))
    step(s, runner)
    s.add(request("b", 3, max_tokens=5, key="b"))
    for _ in range(10):
        assert names(step(s, runner)) == {"a"}


def test_pages_are_taken_from_the_worst_priority() -> None:
    s, runner = scheduler(pages=12, sequences=3), PaperRunner(PAGE)
    for name, priority in (("worst", 2), ("best", 0), ("middle", 1)):
        s.add(request(name, 9, max_tokens=20, priority=priority))
    finished: list[str] = []
    while s.running or s.waiting:
        batch = s.schedule()
        assert batch is not None
        progress = s.update(runner.execute(batch))
        finished += [p.request.request_id for p in progress if p.finish_reason]
    assert s.take_preemptions() > 0
    assert finished == ["best", "middle", "worst"]


def test_pages_are_taken_from_the_key_with_most_service() -> None:
    s, runner = scheduler(pages=16, sequences=3, budget=32), PaperRunner(PAGE)
    greedy = [request(f"greedy{i}", 15, max_tokens=24, key="greedy") for i in range(2)]
    for r in greedy:
        s.add(r)
    for _ in range(3):
        step(s, runner)
    modest = request("modest", 12, max_tokens=24, key="modest")
    s.add(modest)
    while not s.take_preemptions():
        step(s, runner)
    assert [r.state_slot < 0 for r in (*greedy, modest)] == [False, True, False]


def test_a_preempted_request_waits_until_all_of_it_fits() -> None:
    """Two that do not fit together run one after the other, whoever has had less service."""
    s, runner = scheduler(pages=12, sequences=2), PaperRunner(PAGE)
    requests = [request(key, 20, max_tokens=20, key=key) for key in "ab"]
    for r in requests:
        s.add(r)
    while s.running or s.waiting:
        step(s, runner)
    assert s.take_preemptions() == 1
    for r in requests:
        tokens = list(r.prompt_token_ids)
        for token in r.output_token_ids:
            assert token == next_token(tokens, 0)
            tokens.append(token)
