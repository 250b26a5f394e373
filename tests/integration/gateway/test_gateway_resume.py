"""Engines lost in the middle of an answer: its client notices nothing, its bill is that of one."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.engine import Engine, Plan, running_engine, token_id, usage
from support.gateway import MODEL, World, make_world, running_gateway

BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 40,
    "stream": True,
    "stream_options": {"include_usage": True},
}
PLAN = Plan(
    reasoning=["Let", " me"], prompt_tokens=30, hit_tokens=20, token_ids=True, pace_seconds=0.002
)
# The engine that goes on has another cache, which is no affair of the client's.
OTHER = replace(PLAN, hit_tokens=0)
TOKENS = 5
CHUNKS = 1 + TOKENS + 1 + 1  # role, tokens, finish reason, usage
FAULTS: dict[str, dict[str, Any]] = {
    "dies": {},
    "dies in mid-event": {"torn": True},
    "ends early": {},
    "engine_failed": {"event_error_code": "engine_failed"},
    "shutting_down": {"event_error_code": "shutting_down"},
}
WHERE = {"dies": "die", "dies in mid-event": "die", "ends early": "end"}


def broken(fault: str, after_chunks: int, plan: Plan = PLAN) -> Plan:
    """A plan that ends in a fault."""
    field = f"{WHERE.get(fault, 'event_error')}_after_chunks"
    return replace(plan, **{field: after_chunks}, **FAULTS[fault])


@pytest.fixture
async def other() -> AsyncIterator[Engine]:
    """A second engine."""
    async with running_engine() as engine:
        yield engine


@pytest.fixture
async def pair(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine, other: Engine
) -> AsyncIterator[World]:
    """Two engines that take the next of `engine.plans` whichever is asked, else `OTHER`."""
    quick = {"upstream_idle_timeout_seconds": 0.3, "resume_patience_seconds": 5.0}
    with make_world(database_url, redis_url, tmp_path / "journal", **quick) as world:
        for name, one in (("r1", engine), ("r2", other)):
            world.publish(one.url, name=name)
            one.plan = OTHER
            one.plans = engine.plans
        async with running_gateway(world):
            yield world


async def stream(world: World, key: str, body: dict[str, Any] = BODY) -> list[Any]:
    """Every event of an answer, decoded but for the end."""
    async with world.http(key) as http:
        answer = await http.post("/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    events = [part for part in answer.text.split("\n\n") if part.startswith("data: ")]
    data = [event.removeprefix("data: ") for event in events]
    return [it if it == "[DONE]" else json.loads(it) for it in data]


def said(events: list[Any]) -> list[dict[str, Any]]:
    """Every delta."""
    return [e["choices"][0]["delta"] for e in events if e != "[DONE]" and e.get("choices")]


def assert_seamless(events: list[Any]) -> None:
    assert [delta for delta in said(events) if delta] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let"},
        {"reasoning_content": " me"},
        {"content": "Hello"},
        {"content": " world"},
        {"content": "!"},
    ]
    *chunks, done = events
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert "token_ids" not in json.dumps(chunks)
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert chunks[-1]["usage"] == usage(30, 20, TOKENS, 2)


def assert_resumed(first: dict[str, Any], second: dict[str, Any], tokens: int) -> None:
    """The second request is the first and what had been said."""
    ids = second.pop("resume_token_ids", [])
    assert ids == [token_id(number) for number in range(1, tokens + 1)]
    assert first == second


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_stream_goes_on_wherever_its_engine_is_lost(
    pair: World, engine: Engine, other: Engine, fault: str
) -> None:
    key = pair.tenant()
    for cut in range(1, CHUNKS):
        engine.requests.clear()
        other.requests.clear()
        engine.plans.append(broken(fault, cut))
        assert_seamless(await stream(pair, key))
        if cut < CHUNKS - 1:
            (one,), (two,) = engine.requests, other.requests
            first, second = (two, one) if "resume_token_ids" in one else (one, two)
            assert_resumed(first, second, cut - 1)
        else:  # all had been said
            assert len(engine.requests + other.requests) == 1
    rows = await pair.settled(CHUNKS - 1)
    assert {(r.hit_tokens, r.miss_tokens, r.output_tokens, r.finish_reason) for r in rows} == {
        (20, 10, TOKENS, "stop")
    }


async def test_an_engine_that_goes_silent_is_left(pair: World, engine: Engine) -> None:
    engine.plans.append(replace(PLAN, stall_after_chunks=3))
    assert_seamless(await stream(pair, pair.tenant()))
    (row,) = await pair.settled(1)
    assert (row.miss_tokens, row.output_tokens) == (10, TOKENS)


async def test_a_whole_answer_is_seamless_too(pair: World, engine: Engine) -> None:
    key = pair.tenant()
    body = {name: value for name, value in BODY.items() if not name.startswith("stream")}
    for cut in range(1, CHUNKS):
        engine.plans.append(broken("dies", cut))
        async with pair.http(key) as http:
            answer = (await http.post("/chat/completions", json=body)).json()
        assert answer["choices"][0]["message"] == {
            "role": "assistant",
            "reasoning_content": "Let me",
            "content": "Hello world!",
        }
        assert answer["usage"] == usage(30, 20, TOKENS, 2)
    rows = await pair.settled(CHUNKS - 1)
    assert {(row.hit_tokens, row.output_tokens) for row in rows} == {(20, TOKENS)}


async def test_a_second_role_is_kept_from_the_client(pair: World, engine: Engine) -> None:
    engine.plans += [broken("dies", 3), replace(OTHER, says_role_again=True)]
    assert_seamless(await stream(pair, pair.tenant()))


async def test_an_answer_may_be_lost_again_and_again(pair: World, engine: Engine) -> None:
    # By the number of chunks that each engine sends before it dies.
    engine.plans += [broken("dies", 2), broken("engine_failed", 1), broken("dies", 0)]
    engine.plans += [broken("dies in mid-event", 2)]
    assert_seamless(await stream(pair, pair.tenant()))
    (row,) = await pair.settled(1)
    assert (row.hit_tokens, row.miss_tokens, row.output_tokens) == (20, 10, TOKENS)


async def test_an_order_that_ends_every_engine_is_given_up(pair: World, engine: Engine) -> None:
    engine.plans += [broken("dies", 1), *(broken("dies", 0) for _ in range(19))]
    *_, last = await stream(pair, pair.tenant())
    assert last["error"]["code"] == "engine_failed"
    assert len(engine.plans) == 20 - 6
    (row,) = await pair.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("error", 0)


@pytest.mark.parametrize("answer", [replace(OTHER, resumes=False), replace(OTHER, token_ids=False)])
async def test_an_engine_that_begins_anew_is_not_believed(
    pair: World, engine: Engine, answer: Plan
) -> None:
    engine.plans += [broken("dies", 4), answer]
    *events, last = await stream(pair, pair.tenant())
    assert last["error"]["code"] == "engine_failed"
    assert len([delta for delta in said(events) if not delta.get("role")]) == 3
    (row,) = await pair.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("error", 3)


async def test_a_failure_of_the_request_itself_is_not_moved(pair: World, engine: Engine) -> None:
    engine.plans.append(
        replace(PLAN, event_error_after_chunks=3, event_error_code="generation_failed")
    )
    *events, last = await stream(pair, pair.tenant())
    assert last["error"]["code"] == "engine_failed"
    assert [delta.get("reasoning_content") for delta in said(events)][1:] == ["Let", " me"]


async def read_lines(world: World, lines: asyncio.Queue[str]) -> None:
    """Stream an answer, line by line."""
    async with (
        world.http(world.tenant()) as http,
        http.stream("POST", "/chat/completions", json=BODY) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.put_nowait(line)


async def lines_until(lines: asyncio.Queue[str], word: str) -> list[str]:
    """The lines up to one with `word` in it."""
    seen: list[str] = []
    async with asyncio.timeout(5):
        while not seen or word not in seen[-1]:
            seen.append(await lines.get())
    return seen


async def test_an_answer_waits_for_its_engine_to_come_back(
    pair: World, engine: Engine, other: Engine
) -> None:
    await other.stop()
    engine.plans.append(replace(PLAN, stall_after_chunks=3))
    lines: asyncio.Queue[str] = asyncio.Queue()
    reading = asyncio.create_task(read_lines(pair, lines))
    seen = await lines_until(lines, " me")
    port = int(engine.url.rpartition(":")[2])
    await engine.stop()
    seen += await lines_until(lines, ": keep-alive")
    await engine.start(port)
    seen += await lines_until(lines, "[DONE]")
    await reading
    events = [line.removeprefix("data: ") for line in seen if line.startswith("data: ")]
    assert_seamless([it if it == "[DONE]" else json.loads(it) for it in events])
    await pair.settled(1)
    await other.start()


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_prompt_lost_before_its_first_word_waits_as_well(
    pair: World, engine: Engine, other: Engine, is_first: bool
) -> None:
    await other.stop()
    key = pair.tenant()
    if not is_first:  # its connection has served before, and may be thought to have been idle
        await stream(pair, key)
    requests = len(engine.requests)
    engine.plans.append(replace(PLAN, says_nothing=True))
    reading = asyncio.create_task(stream(pair, key))
    await engine.until(lambda: len(engine.requests) > requests)
    port = int(engine.url.rpartition(":")[2])
    await engine.stop()
    await asyncio.sleep(0.2)
    await engine.start(port)
    events = await reading
    assert events[-2]["usage"] == usage(30, 0, TOKENS, 2)
    await pair.settled(1 if is_first else 2)
    await other.start()


async def test_a_client_that_leaves_while_its_answer_waits(
    pair: World, engine: Engine, other: Engine
) -> None:
    engine.plans.append(replace(PLAN, stall_after_chunks=3))
    lines: asyncio.Queue[str] = asyncio.Queue()
    reading = asyncio.create_task(read_lines(pair, lines))
    await lines_until(lines, " me")
    await asyncio.gather(engine.stop(), other.stop())
    await lines_until(lines, ": keep-alive")
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    (row,) = await pair.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("aborted", 2)
    await asyncio.gather(engine.start(), other.start())


async def test_nobody_to_go_on_ends_the_answer_as_before(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    engine.plan = replace(PLAN, stall_after_chunks=3)
    hasty = {"resume_patience_seconds": 0}
    with make_world(database_url, redis_url, tmp_path / "journal", **hasty) as world:
        world.publish(engine.url)
        async with running_gateway(world):
            lines: asyncio.Queue[str] = asyncio.Queue()
            reading = asyncio.create_task(read_lines(world, lines))
            await lines_until(lines, " me")
            await engine.stop()
            assert '"code":"engine_failed"' in (await lines_until(lines, "error"))[-1]
            await reading
            (row,) = await world.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("error", 2)
    await engine.start()


async def test_a_clients_own_seed_is_kept_and_one_is_drawn_else(
    pair: World, engine: Engine, other: Engine
) -> None:
    key = pair.tenant()
    for fields in ({}, {}, {"seed": None}, {"seed": 7}):
        await stream(pair, key, BODY | fields)
    seeds = [request["seed"] for request in engine.requests + other.requests]
    assert 7 in seeds
    assert len({*seeds}) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


async def test_a_tenants_requests_carry_one_opaque_tag(
    pair: World, engine: Engine, other: Engine
) -> None:
    for key in (pair.tenant(), pair.tenant()):
        for user in ("u", "v"):
            await stream(pair, key, BODY | {"user_id": user})
    tags = [request["fairness_key"] for request in engine.requests + other.requests]
    assert sorted(tags.count(tag) for tag in set(tags)) == [2, 2]


async def test_dying_engines_and_leaving_clients_leave_exact_books(
    pair: World, engine: Engine, other: Engine
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    words = ["x"] * 30
    plan = replace(PLAN, words=words, reasoning=[])
    engine.plan = other.plan = plan
    engine.plans += [
        broken(rng.choice(list(FAULTS)), rng.randint(0, 30), plan) if rng.random() < 0.3 else plan
        for _ in range(120)
    ]
    keys = [pair.tenant() for _ in range(3)]

    async def one(http: httpx.AsyncClient, number: int) -> tuple[int, bool]:
        leaves_after = rng.randint(0, 20) if number % 4 == 0 else None
        seen = 0
        headers = {"authorization": f"Bearer {keys[number % 3]}"}
        url = f"{pair.url}/v1/chat/completions"
        async with http.stream("POST", url, json=BODY, headers=headers) as answer:
            async for line in answer.aiter_lines():
                seen += '"content":"x"' in line.replace(" ", "")
                if line == "data: [DONE]":
                    return seen, True
                if leaves_after is not None and seen >= leaves_after:
                    return seen, False
        return seen, False

    async with httpx.AsyncClient(timeout=30) as http:
        outcomes = await asyncio.gather(*(one(http, number) for number in range(80)))
    rows = await pair.settled(80)
    finished = [seen for seen, ended in outcomes if ended]
    assert set(finished) == {30}, seed
    assert len(finished) >= 60 - 2, seed
    assert sum(row.finish_reason == "stop" for row in rows) >= len(finished), seed
    assert all(row.output_tokens == 30 for row in rows if row.finish_reason == "stop"), seed
    assert {(row.hit_tokens, row.miss_tokens) for row in rows if row.output_tokens} == {(20, 10)}
