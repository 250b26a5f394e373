"""Drafts in the scheduler, verified by a runner whose drafts are right as often as not."""

from collections.abc import Sequence

import pytest
from support.paper_runner import PaperRunner, next_token

from worker.batch import Batch, ScheduledSequence
from worker.cache.manager import CacheManager
from worker.request import FinishReason, Grammar, Request, SamplingParams
from worker.scheduler import Scheduler

PAGE = 8
DRAFTS = 3
PROMPT = [3, 1, 4, 1, 5]


def scheduler(*, pages: int = 64, budget: int = 64, length: int = 256) -> Scheduler:
    cache = CacheManager(pages=pages, state_slots=8, snapshots=8, page_tokens=PAGE)
    return Scheduler(cache, max_sequences=8, max_batch_tokens=budget, max_model_len=length)


def request(
    name: str,
    prompt: Sequence[int] = PROMPT,
    *,
    max_tokens: int = 60,
    stop: int | None = None,
    grammar: Grammar | None = None,
) -> Request:
    stops = frozenset() if stop is None else frozenset({stop})
    sampling = SamplingParams(max_tokens=max_tokens, stop_token_ids=stops)
    return Request(name, list(prompt), sampling, grammar=grammar)


def expected(prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, 0))
    return tokens[len(prompt) :]


def run(s: Scheduler, runner: PaperRunner, *requests: Request) -> list[Batch]:
    """Every batch until all have finished."""
    for r in requests:
        s.add(r)
    batches: list[Batch] = []
    while (batch := s.schedule()) is not None:
        s.check()
        batches.append(batch)
        s.update(runner.execute(batch))
        s.check()
    return batches


def drafted(batches: list[Batch]) -> list[ScheduledSequence]:
    return [sequence for batch in batches for sequence in batch.sequences if sequence.draft_count]


def test_drafts_change_no_token_and_save_forwards() -> None:
    runner, r = PaperRunner(PAGE, DRAFTS), request("a", max_tokens=100)
    batches = run(scheduler(), runner, r)
    assert r.output_token_ids == expected(PROMPT, 100)
    assert 0 < runner.accepted_count < runner.draft_count
    assert len(batches) == 100 - runner.accepted_count


def test_without_guesses_nothing_is_drafted() -> None:
    assert not drafted(run(scheduler(), PaperRunner(PAGE), request("a")))


@pytest.mark.parametrize("max_tokens", range(1, 8))
def test_no_draft_goes_beyond_max_tokens(max_tokens: int) -> None:
    runner, r = PaperRunner(PAGE, DRAFTS), request("a", max_tokens=max_tokens)
    batches = run(scheduler(), runner, r)
    assert r.output_token_ids == expected(PROMPT, max_tokens)
    for s in drafted(batches):
        assert s.start + len(s.token_ids) - len(PROMPT) < max_tokens


@pytest.mark.parametrize("length", range(7, 14))
def test_no_draft_goes_beyond_the_context(length: int) -> None:
    runner, r = PaperRunner(PAGE, DRAFTS), request("a")
    batches = run(scheduler(length=length), runner, r)
    assert (r.token_count, r.finish_reason) == (length, FinishReason.LENGTH)
    assert all(s.start + len(s.token_ids) < length for s in drafted(batches))


def test_a_stop_token_ends_the_drafts_before_it_and_the_output_behind_it() -> None:
    free = expected(PROMPT, 60)
    for stop in set(free):
        runner, r = PaperRunner(PAGE, DRAFTS), request("a", stop=stop)
        batches = run(scheduler(), runner, r)
        assert r.output_token_ids == free[: free.index(stop) + 1]
        assert all(stop not in s.draft_token_ids for s in drafted(batches))


def test_every_decode_comes_before_any_draft_and_prompts_go_on() -> None:
    """Six decodes, a budget of ten: two of the four left are for drafts, two for the prompt."""
    s, runner = scheduler(budget=10), PaperRunner(PAGE, DRAFTS)
    decodes = [request(f"d{i}", [i]) for i in range(6)]
    for r in decodes:
        s.add(r)
    while not all(r.output_token_ids for r in decodes):
        batch = s.schedule()
        assert batch is not None
        s.update(runner.execute(batch))
    s.add(request("long", range(40)))
    batch = s.schedule()
    assert batch is not None
    assert {x.request_id for x in batch.sequences} == {*(r.request_id for r in decodes), "long"}
    assert sum(x.draft_count for x in batch.sequences) == 2
    assert batch.token_count <= 10


def test_nobody_is_preempted_for_a_draft() -> None:
    """Two sequences, each with a page and a bit of another, fill the cache to the last page."""
    s, runner = scheduler(pages=4, length=32), PaperRunner(PAGE, DRAFTS)
    requests = [request(name, [*PROMPT, i], max_tokens=10) for i, name in enumerate("ab")]
    batches = run(s, runner, *requests)
    assert s.take_preemptions() == 0
    assert [r.output_token_ids for r in requests] == [
        expected(r.prompt_token_ids, 10) for r in requests
    ]
    assert all(x.start + len(x.token_ids) <= 2 * PAGE for x in drafted(batches))


def test_preempted_requests_draft_on_afterwards() -> None:
    s, runner = scheduler(pages=5, length=40), PaperRunner(PAGE, DRAFTS)
    requests = [request(name, [*PROMPT, i], max_tokens=30) for i, name in enumerate("abc")]
    run(s, runner, *requests)
    assert s.take_preemptions() > 0
    assert runner.accepted_count > 0
    assert [r.output_token_ids for r in requests] == [
        expected(r.prompt_token_ids, 30) for r in requests
    ]


@pytest.mark.parametrize("extra", range(PAGE))
def test_what_was_drafted_is_found_again(extra: int) -> None:
    """Whichever way a step crosses the end of a page, the state kept there is the right one."""
    s, runner = scheduler(), PaperRunner(PAGE, DRAFTS)
    first = request("first", range(extra + 1), max_tokens=40)
    run(s, runner, first)
    turn = [*first.prompt_token_ids, *first.output_token_ids, 7, 8, 9]
    again = request("again", turn, max_tokens=20)
    run(s, runner, again)
    # Of the last token nothing was computed, so the page that it would fill is not there.
    assert again.cache_hit_tokens == (first.token_count - 1) // PAGE * PAGE
    assert again.output_token_ids == expected(turn, 20)


def test_an_unfinished_chunk_is_told_what_follows_it() -> None:
    s, runner = scheduler(budget=11), PaperRunner(PAGE, DRAFTS)
    prompt = list(range(30))
    [first, *rest] = [x for batch in run(s, runner, request("a", prompt)) for x in batch.sequences]
    assert (first.token_ids, first.next_token_id) == (prompt[:8], 8)
    assert all(x.next_token_id is None for x in rest if x.sample_position is not None)


class Alternating:
    """Allows even and odd tokens in turn, whatever came before."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self._count = 0

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        self._count = len(output_token_ids)
        return self._mask(self._count)

    def allowed_after(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        self.asked.append(list(draft_token_ids))
        masks: list[bytes] = []
        for i, draft in enumerate(draft_token_ids):
            if draft % 2 != (self._count + i) % 2:
                break
            masks.append(self._mask(self._count + i + 1))
        return masks

    def _mask(self, count: int) -> bytes:
        return (b"\x55" if count % 2 == 0 else b"\xaa") * 7


def test_the_grammar_ends_the_drafts_and_masks_every_sampled_row() -> None:
    grammar = Alternating()
    batches = run(scheduler(), PaperRunner(PAGE, DRAFTS), request("a", grammar=grammar))
    tried = drafted(batches)
    assert any(len(asked) > 0 for asked in grammar.asked)
    assert tried
    for s in (x for batch in batches for x in batch.sequences):
        if s.allowed_tokens is None:
            assert s.sample_position is None
            continue
        assert len(s.allowed_tokens) == 1 + s.draft_count
        for mask, draft in zip(s.allowed_tokens, s.draft_token_ids, strict=False):
            assert mask[draft // 8] >> draft % 8 & 1
