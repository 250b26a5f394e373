"""Grammars in the running engine, on the real tiny model, whose weights are random."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.running_engine import ENGINE, RunningEngine
from support.structured import ASK, EOS, NO_THINKING, SCHEMAS, assert_valid, json_schema

from worker.config import ModelConfig
from worker.encoding.chat import ChatEncoding, ChatPrompt
from worker.encoding.tokenizer import Tokenizer
from worker.engine.build import build_scheduler
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore
from worker.metrics import EngineMetrics
from worker.request import FinishReason, Request, SamplingParams
from worker.runner.model_runner import ModelRunner
from worker.scheduler import Scheduler

MAX_TOKENS = 400
PROMPT = [(i * 7919) % 100_000 + 10 for i in range(505)]


def sampling(seed: int | None = None) -> SamplingParams:
    """Greedy without a seed."""
    return SamplingParams(
        max_tokens=MAX_TOKENS,
        temperature=0.0 if seed is None else 1.0,
        seed=seed or 0,
        stop_token_ids=frozenset({EOS}),
    )


def structured(chat: ChatEncoding, name: str) -> ChatPrompt:
    fields = {"messages": ASK, "response_format": json_schema(SCHEMAS[name]), **NO_THINKING}
    return chat.encode(fields)


def request(name: str, prompt: ChatPrompt, seed: int | None, salt: bytes = b"") -> Request:
    return Request(name, list(prompt.token_ids), sampling(seed), salt, grammar=prompt.grammar)


def check_answer(answered: Request, name: str, tokenizer: Tokenizer) -> None:
    assert answered.finish_reason is FinishReason.STOP
    assert answered.output_token_ids[-1] == EOS
    text = tokenizer.decode(answered.output_token_ids[:-1])
    assert_valid(json.loads(text), SCHEMAS[name])


def preemptions(metrics: EngineMetrics) -> float:
    (line,) = (
        line
        for line in metrics.text().decode().splitlines()
        if line.startswith("vllm:num_preemptions_total")
    )
    return float(line.split()[-1])


@pytest.mark.parametrize("name", SCHEMAS)
async def test_every_answer_satisfies_its_schema(
    engine: RunningEngine, chat_encoding: ChatEncoding, tokenizer: Tokenizer, name: str
) -> None:
    requests = [
        request(f"{name}{seed}", structured(chat_encoding, name), seed)
        for seed in (None, *range(12))
    ]
    await asyncio.gather(*(engine.progress(r) for r in requests[:8]))
    await asyncio.gather(*(engine.progress(r) for r in requests[8:]))
    for answered in requests:
        check_answer(answered, name, tokenizer)


async def test_neighbours_with_and_without_grammar_do_not_meet(
    engine: RunningEngine, chat_encoding: ChatEncoding
) -> None:
    def batch(salt: bytes) -> list[Request]:
        greedy = replace(sampling(), max_tokens=20)
        free = [Request(f"free{i}-{salt!r}", PROMPT[: 40 + i], greedy, salt) for i in range(4)]
        bound = [
            request(f"{name}-{salt!r}", structured(chat_encoding, name), None, salt)
            for name in ("object", "array", "pattern", "choice")
        ]
        return [r for pair in zip(free, bound, strict=True) for r in pair]

    alone, crowd = batch(b"alone"), batch(b"crowd")
    for r in alone:
        await engine.progress(r)
    await asyncio.gather(*(engine.progress(r) for r in crowd))
    assert [r.output_token_ids for r in crowd] == [r.output_token_ids for r in alone]


async def test_a_grammar_that_cannot_go_on_fails_its_request_alone(engine: RunningEngine) -> None:
    class Stuck:
        def allowed(self, output_token_ids: object) -> bytes:
            return b""

    stuck = Request("stuck", PROMPT[:9], sampling(), grammar=Stuck())
    free = Request("free", PROMPT[:9], replace(sampling(), max_tokens=5))
    progress, _ = await asyncio.gather(engine.progress(stuck), engine.progress(free))
    assert stuck.finish_reason is FinishReason.ERROR
    assert "grammar" in str(progress[-1].error)
    assert len(free.output_token_ids) == 5


async def test_preempted_answers_go_on_where_they_were(
    tiny_directory: Path, runner: ModelRunner, chat_encoding: ChatEncoding, tokenizer: Tokenizer
) -> None:
    """Eight sequences of two pages each fill the cache; each soon needs a third."""
    scheduler: Scheduler = build_scheduler(
        ModelConfig.from_dir(tiny_directory), replace(ENGINE, pages=16), revision="tiny"
    )
    metrics = EngineMetrics("tiny")
    client = EngineClient(EngineCore(scheduler, runner, metrics), max_requests=8)
    await client.start()
    engine = RunningEngine(client, scheduler, runner)
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 12, "maxItems": 12}
    fields = {"messages": ASK, "response_format": json_schema(schema), **NO_THINKING}
    requests = [
        Request(
            f"r{i}",
            PROMPT,
            sampling(i),
            cache_salt=b"%d" % i,
            grammar=chat_encoding.encode(fields).grammar,
        )
        for i in range(8)
    ]
    await asyncio.gather(*(engine.progress(r) for r in requests))
    await client.stop()
    scheduler.check()
    assert preemptions(metrics) > 0
    for answered in requests:
        value = json.loads(tokenizer.decode(answered.output_token_ids[:-1]))
        assert_valid(value, schema)
