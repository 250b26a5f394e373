"""Guesses in the running engine: the same answers as without, whatever is guessed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.predictable import ScriptedRunner, write_predictable
from support.running_engine import ENGINE, RunningEngine
from support.structured import ASK, EOS, NO_THINKING, SCHEMAS, json_schema

from worker.config import EngineConfig, ModelConfig
from worker.encoding.chat import ChatEncoding
from worker.engine.build import build_scheduler
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore, Runner
from worker.metrics import EngineMetrics
from worker.request import Request, SamplingParams
from worker.runner.model_runner import ModelRunner
from worker.scheduler import Progress

DRAFTS = 4
DRAFTING = replace(ENGINE, draft_tokens=DRAFTS)
PROMPT = [(i * 7919) % 100_000 + 10 for i in range(700)]
Answers = dict[int, list[tuple[int | None, float | None]]]


@pytest.fixture(scope="module")
def drafting(tiny_directory: Path) -> ModelRunner:
    return ModelRunner(tiny_directory, DRAFTING)


@pytest.fixture(scope="module")
def predictable(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that its draft head foresees almost always."""
    target = tmp_path_factory.mktemp("predictable") / "model"
    return write_predictable(tiny_directory, target, damping=8)


@asynccontextmanager
async def engine_on(
    runner: Runner, directory: Path, config: EngineConfig = DRAFTING
) -> AsyncIterator[tuple[RunningEngine, EngineMetrics]]:
    scheduler = build_scheduler(ModelConfig.from_dir(directory), config, revision="drafts")
    metrics = EngineMetrics("m")
    client = EngineClient(EngineCore(scheduler, runner, metrics), max_requests=64)
    await client.start()
    yield RunningEngine(client, scheduler, runner), metrics  # type: ignore[arg-type]
    await client.stop()
    scheduler.check()
    assert (scheduler.running, scheduler.waiting, scheduler.page_usage) == (0, 0, 0.0)


def count(metrics: EngineMetrics, name: str) -> float:
    lines = metrics.text().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}_total"))


def told(progress: list[Progress]) -> list[tuple[int | None, float | None]]:
    return [(p.token and p.token.token_id, p.token and p.token.logprob) for p in progress]


async def answers(engine: RunningEngine, requests: list[Request]) -> Answers:
    progress = await asyncio.gather(*(engine.progress(r) for r in requests))
    return {r.sampling.seed: told(p) for r, p in zip(requests, progress, strict=True)}


def ids(answers: Answers) -> dict[int, list[int]]:
    return {seed: [t for t, _ in told if t is not None] for seed, told in answers.items()}


def same(found: Answers, expected: Answers) -> bool:
    assert ids(found) == ids(expected)
    for seed, told in found.items():
        for (_, ours), (_, theirs) in zip(told, expected[seed], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-3)
    return True


def requests(chat: ChatEncoding, salt: bytes) -> list[Request]:
    """Greedy, sampled, cut by a stop token, and bound by grammars; prompts of all lengths."""
    made: list[Request] = []
    for seed in range(6):
        sampling = SamplingParams(
            max_tokens=20 + seed,
            temperature=seed % 2,
            top_p=0.9,
            seed=seed,
            logprobs=2,
            stop_token_ids=frozenset(range(0, 129_280, 41)) if seed == 4 else frozenset(),
        )
        made.append(Request(f"{salt!r}{seed}", PROMPT[: 20 + 97 * seed], sampling, salt))
    for seed, name in ((6, "object"), (7, "pattern")):
        fields = {"messages": ASK, "response_format": json_schema(SCHEMAS[name]), **NO_THINKING}
        prompt = chat.encode(fields)
        sampling = SamplingParams(
            max_tokens=60, temperature=seed % 2, seed=seed, stop_token_ids=frozenset({EOS})
        )
        grammar = prompt.grammar
        ids = list(prompt.token_ids)
        made.append(Request(f"{salt!r}{name}", ids, sampling, salt, grammar=grammar))
    return made


def scripted(runner: Runner, outputs: Mapping[int, list[int]]) -> ScriptedRunner:
    return ScriptedRunner(runner, {0: [0] * 10, **outputs}, DRAFTS)


async def test_answers_are_those_of_an_engine_that_never_guesses(
    tiny_directory: Path, runner: ModelRunner, drafting: ModelRunner, chat_encoding: ChatEncoding
) -> None:
    """In a crowd, and again on what the first round left in the prefix cache."""
    async with engine_on(runner, tiny_directory, ENGINE) as (engine, metrics):
        expected = await answers(engine, requests(chat_encoding, b"plain"))
        assert count(metrics, "spec_decode_num_drafts") == 0
    script = scripted(drafting, ids(expected))
    async with engine_on(script, tiny_directory) as (engine, metrics):
        for salt in (b"one", b"one"):
            before = count(metrics, "engine_steps")
            made = requests(chat_encoding, salt)
            assert same(await answers(engine, made), expected)
            steps = count(metrics, "engine_steps") - before
        assert made[5].cache_hit_tokens == 505 // 256 * 256
        assert steps < max(map(len, expected.values()))
        assert 0 < script.right < script.tried
        assert count(metrics, "spec_decode_num_draft_tokens") == script.tried
        assert count(metrics, "spec_decode_num_accepted_tokens") == script.right
        assert count(metrics, "spec_decode_num_accepted_tokens_per_pos") == script.right


async def test_preempted_answers_are_the_same(
    tiny_directory: Path, runner: ModelRunner, drafting: ModelRunner
) -> None:
    """Eight sequences of two pages each fill the cache; each soon needs a third."""

    def batch() -> list[Request]:
        sampling = [SamplingParams(max_tokens=16, temperature=i % 2, seed=i) for i in range(8)]
        prompt = PROMPT[:505]
        return [Request(f"r{s.seed}", prompt, s, cache_salt=b"%d" % s.seed) for s in sampling]

    small = replace(ENGINE, pages=16)
    async with engine_on(runner, tiny_directory, ENGINE) as (engine, _):
        expected = await answers(engine, batch())
    script = scripted(drafting, ids(expected))
    async with engine_on(script, tiny_directory, small) as (engine, metrics):
        assert same(await answers(engine, batch()), expected)
        assert count(metrics, "num_preemptions") > 0
        assert script.right > 0


async def test_a_conversation_hits_what_was_guessed(
    tiny_directory: Path, drafting: ModelRunner, runner: ModelRunner
) -> None:
    """The page whose end a guess ran over is found again, with the state at its end."""
    long = SamplingParams(max_tokens=40, temperature=0.0, seed=1)
    short = SamplingParams(max_tokens=12, temperature=0.0, seed=2)
    async with engine_on(runner, tiny_directory, ENGINE) as (engine, _):
        first = await engine.generate("a", PROMPT[:485], long)
        turn = [*PROMPT[:485], *first.output_token_ids, 11, 12, 13]
        second = await engine.generate("b", turn, short, salt=b"fresh")
    script = scripted(drafting, {1: first.output_token_ids, 2: second.output_token_ids})
    async with engine_on(script, tiny_directory) as (engine, _):
        again = await engine.generate("a", PROMPT[:485], long)
        assert again.output_token_ids == first.output_token_ids
        hit = await engine.generate("b", turn, short)
    assert hit.cache_hit_tokens == 512
    assert hit.output_token_ids == second.output_token_ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_head_that_knows_its_model_saves_most_forwards(
    predictable: Path, temperature: float
) -> None:
    sampling = SamplingParams(max_tokens=40, temperature=temperature, seed=3)
    plain, drafting = ModelRunner(predictable, ENGINE), ModelRunner(predictable, DRAFTING)
    async with engine_on(plain, predictable, ENGINE) as (engine, _):
        expected = await engine.generate("a", PROMPT[:50], sampling)
    async with engine_on(drafting, predictable) as (engine, metrics):
        found = await engine.generate("a", PROMPT[:50], sampling)
        accepted = count(metrics, "spec_decode_num_accepted_tokens")
    assert found.output_token_ids == expected.output_token_ids
    assert accepted > 0.6 * 40
    assert drafting.forward_count < 0.5 * plain.forward_count
