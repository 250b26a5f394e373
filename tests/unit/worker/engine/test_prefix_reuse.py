"""Real models through the real scheduler: however a prefix is reused, what follows it is what a
fresh run gives, and the reported hit is what was not computed."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.v4 import ENGINE, SMALL, Sequences

from worker.batch import Batch, SequenceOutput
from worker.config import ModelConfig
from worker.engine.build import build_scheduler
from worker.model.tiny import write_checkpoint
from worker.request import Request, SamplingParams
from worker.runner.model_runner import NOT_FINITE, ModelRunner
from worker.scheduler import Scheduler

PAGE = SMALL.page_tokens
REACH = 4 * 23 + 23  # five layers with windows of 24
LIMITS = replace(ENGINE, max_model_len=4 * PAGE, max_batch_tokens=300, max_sequences=2)


class CountingRunner:
    """Counts the tokens that a real runner computes."""

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner
        self.computed: dict[str, int] = {}

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        for s in batch.sequences:
            self.computed[s.request_id] = self.computed.get(s.request_id, 0) + len(s.token_ids)
        return self.runner.execute(batch)


def tokens(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(SMALL.vocab_size), k=count)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reuse") / "model"
    write_checkpoint(directory, SMALL, seed=13)
    return directory


def request(name: str, prompt: list[int], max_tokens: int = 3) -> Request:
    return Request(name, prompt, SamplingParams(max_tokens=max_tokens, temperature=0.0, logprobs=5))


def answers(s: Scheduler, runner: CountingRunner, *requests: Request) -> Iterator[torch.Tensor]:
    """Log-probabilities of each request's tokens and their alternatives."""
    for r in requests:
        s.add(r)
    seen: dict[str, list[float]] = {r.request_id: [] for r in requests}
    while s.running or s.waiting:
        batch = s.schedule()
        assert batch is not None
        for p in s.update(runner.execute(batch)):
            assert p.error is None
            if p.token is not None:
                seen[p.request.request_id] += [x for _, x in p.token.top]
        s.check()
    return (torch.tensor(seen[r.request_id]) for r in requests)


@pytest.mark.parametrize("kv_format", ["auto", "fp8"])
@pytest.mark.parametrize(
    ("policy", "hit"),
    [("full", 3 * PAGE), ("every:2", 3 * PAGE - REACH), ("window", 3 * PAGE - REACH)],
)
def test_a_reused_prefix_changes_nothing(
    model: Path, policy: str, hit: int, kv_format: str
) -> None:
    engine = replace(LIMITS, snapshots=policy, kv_format=kv_format)
    runner = CountingRunner(ModelRunner(model, engine))
    reused = build_scheduler(SMALL, engine, revision="")
    prompt = tokens(3 * PAGE + 20)
    first, again = request("first", prompt), request("again", prompt)
    [ours] = answers(reused, runner, first)
    [theirs] = answers(reused, runner, again)
    assert (first.cache_hit_tokens, again.cache_hit_tokens) == (0, hit)
    assert runner.computed == {"first": len(prompt) + 2, "again": len(prompt) + 2 - hit}
    assert again.output_token_ids == first.output_token_ids
    tolerance = 1e-5 if kv_format == "auto" else 1e-4  # fp8: last bits may round entries elsewhere
    assert (ours - theirs).abs().max() <= tolerance * ours.abs().max()


def rebuilt_error(runner: ModelRunner, prompt: list[int], start: int, known: int) -> float:
    """Largest error after `known` tokens, whose state was rebuilt from `start` on, over the
    largest logit."""
    sequences = Sequences(runner)
    whole = sequences.logits({0: prompt})[0][known:]
    runner.execute(Batch([], resets=[1]))
    sequences.pages[1], sequences.lengths[1] = list(sequences.pages[0]), start
    sequences.known[1] = known
    rebuilt = sequences.logits({1: prompt[start:]})[1][known - start :]
    return float((rebuilt - whole).abs().max() / whole.abs().max())


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, sliding_window=1),  # CSA's overlap reaches further than the window
        replace(SMALL, sliding_window=5, compress_ratios=(4, 4, 4, 32, 4, 0)),
        replace(SMALL, sliding_window=60, compress_ratios=(32, 0, 32, 0, 4, 0), index_topk=200),
    ],
    ids=["small", "self only", "short window", "long window"],
)
def test_a_rebuilt_state_is_exact(tmp_path: Path, config: ModelConfig) -> None:
    write_checkpoint(tmp_path / "model", config, seed=15)
    runner = ModelRunner(tmp_path / "model", replace(LIMITS, draft_tokens=2))
    start = 2 * PAGE - config.state_reach_tokens
    assert start > 0
    assert rebuilt_error(runner, tokens(2 * PAGE + 60), start, 2 * PAGE) <= 1e-5


def test_a_state_rebuilt_from_half_the_reach_is_not(model: Path) -> None:
    runner = ModelRunner(model, LIMITS)
    start = 2 * PAGE - REACH // 2
    assert rebuilt_error(runner, tokens(2 * PAGE + 60), start, 2 * PAGE) > 1e-4


def test_preempted_and_resumed_over_fp8_entries_is_as_if_alone(model: Path) -> None:
    engine = replace(LIMITS, kv_format="fp8", snapshots="window", pages=5)
    runner = CountingRunner(ModelRunner(model, engine))
    prompts = {"a": tokens(2 * PAGE - 10, 1), "b": tokens(2 * PAGE - 20, 2)}
    alone = {}
    for name, prompt in prompts.items():
        s = build_scheduler(SMALL, engine, revision="")
        [alone[name]] = answers(s, runner, request(name, prompt, max_tokens=30))
    crowded = build_scheduler(SMALL, engine, revision="")
    together = [request(name, prompt, max_tokens=30) for name, prompt in prompts.items()]
    results = dict(zip(prompts, answers(crowded, runner, *together), strict=True))
    assert crowded.take_preemptions() > 0
    for name in prompts:
        assert (results[name] - alone[name]).abs().median() <= 1e-4


def test_a_prefix_gone_bad_fails_no_later_request(model: Path) -> None:
    runner = ModelRunner(model, LIMITS)
    s = build_scheduler(SMALL, LIMITS, revision="")
    prompt = tokens(700, seed=8)
    s.add(request("bad", prompt))
    failed: list[str | None] = []
    while s.running or s.waiting:
        batch = s.schedule()
        assert batch is not None
        failed += [p.error for p in s.update(runner.execute(batch))]
        for layer in runner.kv.layers:
            layer.window.data[batch.sequences[0].state_slot] = torch.nan
        s.check()
    assert failed == [NOT_FINITE]
    again = request("again", prompt)
    [ours] = answers(s, CountingRunner(runner), again)
    assert again.cache_hit_tokens == 0
    fresh = build_scheduler(SMALL, LIMITS, revision="")
    [alone] = answers(fresh, CountingRunner(ModelRunner(model, LIMITS)), request("alone", prompt))
    torch.testing.assert_close(ours, alone, atol=1e-4, rtol=0)


def test_a_prompt_gone_bad_fails_before_its_end_and_alone(model: Path) -> None:
    runner = ModelRunner(model, LIMITS)
    s = build_scheduler(SMALL, LIMITS, revision="")
    prompt = tokens(3 * PAGE, seed=9)
    for r in (request("bad", prompt), request("good", tokens(40, seed=10), max_tokens=9)):
        s.add(r)
    errors: dict[str, str | None] = {}
    sampled: dict[str, bool] = {}  # whether the last step of each sampled
    steps = 0
    while s.running or s.waiting:
        batch = s.schedule()
        assert batch is not None
        if steps == 1:  # the first page is known by now, and its entries turn bad
            for layer in runner.kv.layers:
                for cache in (layer.entries, layer.index):
                    if cache is not None:
                        cache.pages.data[batch.sequences[-1].pages[0]] = torch.nan
        sampled |= {q.request_id: q.sample_position is not None for q in batch.sequences}
        for p in s.update(runner.execute(batch)):
            if p.finish_reason is not None:
                errors[p.request.request_id] = p.error
        steps += 1
        s.check()
    assert errors == {"bad": NOT_FINITE, "good": None}
    assert sampled == {"bad": False, "good": True}
    again = request("again", prompt)
    s.add(again)
    s.schedule()
    assert again.cache_hit_tokens == 0
