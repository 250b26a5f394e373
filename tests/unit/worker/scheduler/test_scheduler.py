from typing import Any

from support.paper_runner import PaperRunner, next_token

from worker.batch import Batch, SequenceOutput
from worker.cache.manager import CacheManager
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Progress, Scheduler

PAGE = 4


def scheduler(
    *,
    pages: int = 64,
    sequences: int = 8,
    budget: int = 16,
    length: int = 64,
    interval: int = 1,
    reach: int | None = None,
) -> Scheduler:
    cache = CacheManager(
        pages=pages,
        state_slots=sequences,
        snapshots=8,
        page_tokens=PAGE,
        snapshot_interval_pages=interval,
        state_reach_tokens=reach,
    )
    return Scheduler(cache, max_sequences=sequences, max_batch_tokens=budget, max_model_len=length)


def request(
    name: str,
    prompt: list[int],
    *,
    max_tokens: int = 4,
    stop_token_ids: frozenset[int] = frozenset(),
    prompt_logprobs: int | None = None,
) -> Request:
    sampling = SamplingParams(
        max_tokens=max_tokens, stop_token_ids=stop_token_ids, prompt_logprobs=prompt_logprobs
    )
    return Request(name, prompt, sampling)


def step(s: Scheduler, runner: PaperRunner) -> tuple[Batch | None, list[Progress]]:
    batch = s.schedule()
    s.check()
    if batch is None:
        return None, []
    progress = s.update(runner.execute(batch))
    s.check()
    return batch, progress


def drain(s: Scheduler, runner: PaperRunner) -> list[Progress]:
    seen: list[Progress] = []
    while s.running or s.waiting:
        seen += step(s, runner)[1]
    return seen


def expected(r: Request) -> list[int]:
    tokens = list(r.prompt_token_ids)
    for _ in range(r.sampling.max_tokens):
        tokens.append(next_token(tokens, r.sampling.seed))
    return tokens[len(r.prompt_token_ids) :]


class ReadCountingPrompt(list[int]):
    """Counts how often its tokens are read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)


def test_a_prompt_that_waits_for_pages_is_not_read_at_every_step() -> None:
    s, runner = scheduler(pages=8, length=32), PaperRunner(PAGE)
    first = request("running", [1] * 24, max_tokens=8)
    s.add(first)
    while not first.output_token_ids:
        step(s, runner)
    prompt = ReadCountingPrompt(range(30))
    s.add(request("waiting", prompt, max_tokens=1))
    waited = 0
    while s.waiting:
        waited += 1
        step(s, runner)
    assert waited > 5
    # Each page once for its key, the first chunk, and the token after it.
    assert prompt.reads <= 30 // PAGE + 2
    drain(s, runner)


def test_nothing_to_run_is_no_batch() -> None:
    assert scheduler().schedule() is None


def test_requests_share_one_forward() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    for name in "abc":
        s.add(request(name, [1, 2, 3], max_tokens=5))
    drain(s, runner)
    assert runner.forward_count == 5


def test_long_prompt_does_not_stall_decodes() -> None:
    s, runner = scheduler(budget=8), PaperRunner(PAGE)
    s.add(request("decoding", [1, 2], max_tokens=20))
    step(s, runner)
    s.add(request("long", list(range(40))))
    for _ in range(5):
        batch, _ = step(s, runner)
        assert batch is not None
        assert "decoding" in {x.request_id for x in batch.sequences}
        assert batch.token_count <= 8


def test_first_come_first_served() -> None:
    s, runner = scheduler(budget=8), PaperRunner(PAGE)
    for name in ("first", "second"):
        s.add(request(name, list(range(20)), max_tokens=1))
    finished = [p.request.request_id for p in drain(s, runner) if p.finish_reason]
    assert finished == ["first", "second"]


def test_stops_at_a_stop_token() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    stop = next_token([1, 2], 0)
    s.add(request("a", [1, 2], stop_token_ids=frozenset({stop})))
    progress = drain(s, runner)
    assert [p.finish_reason for p in progress] == [FinishReason.STOP]


def test_ends_at_max_tokens() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    r = request("a", [1, 2], max_tokens=3)
    s.add(r)
    assert [p.finish_reason for p in drain(s, runner)] == [None, None, FinishReason.LENGTH]
    assert r.output_token_ids == expected(r)


def test_ends_where_the_context_ends() -> None:
    s, runner = scheduler(length=8), PaperRunner(PAGE)
    r = request("a", [1, 2, 3, 4, 5], max_tokens=100)
    s.add(r)
    drain(s, runner)
    assert (r.token_count, r.finish_reason) == (8, FinishReason.LENGTH)


def test_repeated_prompt_is_not_computed_again() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    s.add(request("a", list(range(14))))
    drain(s, runner)
    again = request("b", list(range(14)))
    s.add(again)
    drain(s, runner)
    assert again.cache_hit_tokens == 12
    assert runner.computed_tokens["b"] == 14 + 3 - 12  # the last output is never fed back
    assert again.output_token_ids == expected(again)


def test_conversation_continues_from_its_own_output() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    first = request("a", list(range(6)), max_tokens=10)
    s.add(first)
    drain(s, runner)
    second = request("b", [*first.prompt_token_ids, *first.output_token_ids, 7, 8, 9])
    s.add(second)
    drain(s, runner)
    assert second.cache_hit_tokens == 12


def test_third_prompt_with_a_common_start_hits_it() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    common = list(range(9))
    for tail in (20, 30):
        s.add(request(str(tail), [*common, *range(tail, tail + 8)]))
        drain(s, runner)
    third = request("third", [*common, *range(40, 48)])
    s.add(third)
    drain(s, runner)
    assert third.cache_hit_tokens == 8


def test_scored_prompts_bypass_the_cache_and_score_every_token() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    prompt = list(range(30))
    s.add(request("a", prompt))
    drain(s, runner)
    scored = request("b", prompt, prompt_logprobs=0)
    s.add(scored)
    progress = drain(s, runner)
    assert scored.cache_hit_tokens == 0
    assert [t.token_id for p in progress for t in p.prompt_logprobs] == prompt[1:]


def test_preempts_the_latest_when_pages_run_out() -> None:
    s, runner = scheduler(pages=6, length=24), PaperRunner(PAGE)
    requests = [request(name, [i, 2, 3, 4, 5, 6], max_tokens=12) for i, name in enumerate("abc")]
    for r in requests:
        s.add(r)
    finished = [p.request.request_id for p in drain(s, runner) if p.finish_reason]
    assert s.take_preemptions() > 0
    assert finished[0] == "a"
    assert [r.output_token_ids for r in requests] == [expected(r) for r in requests]
    assert [r.cache_hit_tokens for r in requests] == [0, 0, 0]


def test_preempted_prompt_is_scored_once() -> None:
    s, runner = scheduler(pages=5, length=20, budget=9), PaperRunner(PAGE)
    s.add(request("a", [1, 2, 3, 4, 5, 6], max_tokens=10))
    s.add(request("b", list(range(10, 24)), max_tokens=2, prompt_logprobs=0))
    progress = [p for p in drain(s, runner) if p.request.request_id == "b"]
    assert s.take_preemptions() > 0
    assert [t.token_id for p in progress for t in p.prompt_logprobs] == list(range(11, 24))


def test_abort_while_waiting_running_and_in_flight() -> None:
    s, runner = scheduler(sequences=2), PaperRunner(PAGE)
    for name in "abc":
        s.add(request(name, [1, 2, 3], max_tokens=50))
    step(s, runner)
    s.abort("c")
    s.abort("a")
    s.check()
    batch = s.schedule()
    assert batch is not None
    s.abort("b")
    s.check()
    assert s.update(runner.execute(batch)) == []
    s.check()
    assert (s.running, s.waiting) == (0, 0)


def test_abort_of_an_unknown_request_is_ignored() -> None:
    s = scheduler()
    s.add(request("somebody", [1, 2]))
    s.abort("nobody")
    s.check()
    assert (s.running, s.waiting) == (0, 1)


def test_failed_sequence_leaves_the_others_alone() -> None:
    s, runner = scheduler(), PaperRunner(PAGE)
    good, bad = request("good", [1, 2]), request("bad", [1, 2])
    s.add(good)
    s.add(bad)
    batch = s.schedule()
    assert batch is not None
    outputs = [
        SequenceOutput("bad", error="not finite") if o.request_id == "bad" else o
        for o in runner.execute(batch)
    ]
    failed = [p for p in s.update(outputs) if p.finish_reason]
    assert [(p.request.request_id, p.error) for p in failed] == [("bad", "not finite")]
    drain(s, runner)
    assert good.output_token_ids == expected(good)


def test_snapshots_at_intervals_serve_prefixes_up_to_them() -> None:
    s, runner = scheduler(interval=3), PaperRunner(PAGE)
    for name in "ab":
        r = request(name, list(range(30)))
        s.add(r)
        drain(s, runner)
        assert r.output_token_ids == expected(r)
    assert r.cache_hit_tokens == 24
    assert runner.computed_tokens["b"] == 30 + 3 - 24


def test_without_snapshots_only_what_the_windows_reach_is_computed_again() -> None:
    s, runner = scheduler(interval=0, reach=6), PaperRunner(PAGE, reach=6)
    for name in "ab":
        r = request(name, list(range(30)))
        s.add(r)
        drain(s, runner)
        assert r.output_token_ids == expected(r)
    assert r.cache_hit_tokens == 28 - 6
    assert runner.computed_tokens["b"] == 30 + 3 - r.cache_hit_tokens
    assert not runner.snapshots
