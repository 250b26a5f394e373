"""An engine of two processes, which also drafts, gives the same answers as one that does not."""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.polling import until
from support.rank_group import Driver, rank_pids
from support.running_engine import ENGINE
from support.structured import ASK, EOS, NO_THINKING, SCHEMAS, assert_valid, json_schema

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.build import build_engine
from worker.metrics import EngineMetrics
from worker.request import FinishReason, Request, SamplingParams

TWO = replace(ENGINE, ep_size=2, draft_tokens=1)
GREEDY = SamplingParams(max_tokens=6, temperature=0.0, logprobs=3)
PROMPT = [(i * 7919) % 100_000 + 10 for i in range(700)]


class Pair:
    """The same model on one rank and on two."""

    def __init__(self, directory: Path) -> None:
        self.metrics = EngineMetrics("two")
        self.one = Driver(build_engine(directory, ENGINE, EngineMetrics("one")))
        self.two = Driver(build_engine(directory, TWO, self.metrics))

    def answers(self, asked: list[Request]) -> None:
        """Run `asked` on both; they must agree in everything a caller can see."""
        ours = self.two.run([replace(r, output_token_ids=[]) for r in asked])
        theirs = self.one.run(asked)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.output_token_ids == other.output_token_ids
            assert mine.finish_reason == other.finish_reason
            assert mine.cache_hit_tokens == other.cache_hit_tokens
            pairs = zip(
                self.two.logprobs[mine.request_id],
                self.one.logprobs[mine.request_id],
                strict=True,
            )
            assert all(a.logprob == pytest.approx(b.logprob, abs=1e-4) for a, b in pairs)


@pytest.fixture(scope="module")
def pair(tiny_directory: Path) -> Iterator[Pair]:
    both = Pair(tiny_directory)
    yield both
    both.one.engine.stop()
    both.two.engine.stop()
    assert rank_pids() == []
    assert (both.one.crash, both.two.crash) == (None, None)


def test_greedy_and_seeded_answers_are_those_of_one_rank(pair: Pair) -> None:
    drawn = [replace(GREEDY, temperature=1.0, top_p=0.9, seed=i) for i in range(4)]
    asked = [
        Request(f"mixed{i}", PROMPT[i : 20 + 60 * i], sampling, cache_salt=b"%d" % i)
        for i, sampling in enumerate([GREEDY, *drawn, GREEDY, GREEDY, GREEDY])
    ]
    pair.answers(asked)


def test_a_prompt_that_comes_again_finds_its_pages(pair: Pair) -> None:
    """Whichever rank has least to do."""
    for turn in range(4):
        pair.answers([Request(f"again{turn}", PROMPT, GREEDY, cache_salt=b"again")])
        assert pair.two.engine.running == 0


def test_many_requests_spread_over_the_ranks(pair: Pair) -> None:
    long = replace(GREEDY, max_tokens=60)
    asked = [Request(f"wide{i}", PROMPT[i : i + 9], long) for i in range(2 * ENGINE.max_sequences)]
    for request in asked:
        pair.two.engine.submit(request)
    more_than_one = ENGINE.max_sequences + 1
    until(lambda: pair.two.engine.running >= more_than_one, seconds=30, what="both ranks run")
    pair.two.wait({request.request_id for request in asked})


@pytest.fixture
def structured(chat_encoding: ChatEncoding) -> Callable[[str, list[int]], Request]:
    """A request for an object, under this name, that has begun with these tokens."""
    fields = {"messages": ASK, "response_format": json_schema(SCHEMAS["object"]), **NO_THINKING}
    sampling = SamplingParams(max_tokens=400, seed=3, stop_token_ids=frozenset({EOS}))

    def request(name: str, begun: list[int]) -> Request:
        prompt = chat_encoding.encode(fields)
        tokens, grammar = list(prompt.token_ids), prompt.grammar
        return Request(name, tokens, sampling, grammar=grammar, output_token_ids=begun)

    return request


def test_structured_answers_are_those_of_one_rank(
    pair: Pair, structured: Callable[[str, list[int]], Request], tokenizer: Tokenizer
) -> None:
    (ours,) = pair.two.run([structured("two", [])])
    (theirs,) = pair.one.run([structured("one", [])])
    assert ours.output_token_ids == theirs.output_token_ids
    assert ours.finish_reason is FinishReason.STOP
    assert_valid(json.loads(tokenizer.decode(ours.output_token_ids[:-1])), SCHEMAS["object"])


def test_a_structured_answer_that_was_begun_elsewhere_goes_on(
    pair: Pair, structured: Callable[[str, list[int]], Request]
) -> None:
    (whole,) = pair.one.run([structured("whole", [])])
    (resumed,) = pair.two.run([structured("resumed", whole.output_token_ids[:4])])
    assert resumed.output_token_ids == whole.output_token_ids


def test_a_storm_of_aborts_leaves_nothing(pair: Pair) -> None:
    dice, engine = random.Random(0), pair.two.engine
    for i in range(40):
        request = Request(
            f"storm{i}", PROMPT[: dice.randint(1, 300)], replace(GREEDY, max_tokens=9)
        )
        engine.submit(request)
        if dice.random() < 0.3:
            pair.two.wait_for_token(request.request_id)
        if dice.random() < 0.7:
            engine.abort(request.request_id)
    until(lambda: not engine.running and not engine.waiting, seconds=30, what="the storm is over")
    pair.answers([Request("after the storm", PROMPT[:50], GREEDY)])


def test_a_signal_to_a_rank_is_for_the_process_that_serves(pair: Pair) -> None:
    for pid in rank_pids():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    pair.answers([Request("after the signals", PROMPT[:50], GREEDY)])


def test_metrics_are_those_of_both_ranks(pair: Pair) -> None:
    def steps() -> float:
        lines = pair.metrics.text().decode().splitlines()
        (line,) = [line for line in lines if line.startswith("vllm:engine_steps_total")]
        return float(line.split()[-1])

    before = steps()
    pair.two.run([Request(f"counted{i}", PROMPT[i : i + 3], GREEDY) for i in range(2)])
    # More than one rank can have taken, and fewer than all if a draft was right.
    assert GREEDY.max_tokens < steps() - before <= 2 * GREEDY.max_tokens
