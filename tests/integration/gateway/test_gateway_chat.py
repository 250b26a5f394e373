"""Chat through the gateway, seen by the official client and by the bill."""

import json

import pytest
from support.engine import Engine, Plan, usage
from support.gateway import HIT_RATE_P, MISS_RATE_P, MODEL, OUTPUT_RATE_P, World
from support.replaying import read

HELLO = [{"role": "user", "content": "Hello"}]
ANSWER = Plan(reasoning=["Let", " me"], prompt_tokens=30, hit_tokens=20)
CHARGE_P = 20 * HIT_RATE_P + 10 * MISS_RATE_P + 5 * OUTPUT_RATE_P


async def stream_events(world: World, **fields: object) -> list[str]:
    """The data of every event of a streamed answer."""
    body = {"model": MODEL, "messages": HELLO, "stream": True, **fields}
    async with (
        world.http(world.tenant()) as http,
        http.stream("POST", "/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.aiter_lines()]
    assert not any(line.startswith(("id:", "event:", "retry:")) for line in lines)
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


async def test_a_whole_answer_and_its_bill(world: World, engine: Engine) -> None:
    engine.plan = ANSWER
    async with world.client(world.tenant()) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=20)
    (choice,) = answer.choices
    assert choice.message.content == "Hello world!"
    assert choice.message.reasoning_content == "Let me"
    assert choice.finish_reason == "stop"
    assert answer.usage.model_dump(exclude_none=True) == usage(30, 20, 5, 2)
    (row,) = await world.settled()
    assert row.charge_p == CHARGE_P
    assert (row.replica, row.finish_reason, row.streamed) == ("r1", "stop", False)


async def test_a_stream_and_its_bill(world: World, engine: Engine) -> None:
    engine.plan = ANSWER
    async with world.client(world.tenant()) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello world!"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    (row,) = await world.settled()
    assert row.charge_p == CHARGE_P
    assert (row.finish_reason, row.streamed, row.reasoning_tokens) == ("stop", True, 2)
    assert row.started_at <= row.first_token_at <= row.finished_at


async def test_usage_rides_on_the_last_chunk_when_not_asked_for(
    world: World, engine: Engine
) -> None:
    engine.plan = ANSWER
    *rest, last, done = await stream_events(world)
    assert done == "[DONE]"
    assert not any("usage" in json.loads(event) for event in rest)
    assert json.loads(last)["choices"][0]["finish_reason"] == "stop"
    assert json.loads(last)["usage"] == usage(30, 20, 5, 2)


async def test_usage_has_its_own_chunk_when_asked_for(world: World, engine: Engine) -> None:
    engine.plan = ANSWER
    events = await stream_events(world, stream_options={"include_usage": True})
    *rest, last, done = events
    assert done == "[DONE]"
    assert not any("usage" in json.loads(event) for event in rest)
    assert json.loads(rest[-1])["choices"][0]["finish_reason"] == "stop"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"] == usage(30, 20, 5, 2)


async def test_an_engine_without_a_usage_chunk_is_billed_by_its_last_chunk(
    world: World, engine: Engine
) -> None:
    engine.plan = Plan(usage_chunk=False, done=False)
    assert json.loads((await stream_events(world))[-2])["usage"] == usage(10, 0, 3)
    (row,) = await world.settled()
    assert row.output_tokens == 3


async def test_openai_names_of_cached_tokens_are_understood(world: World, engine: Engine) -> None:
    def openai_usage(output: int) -> dict[str, object]:
        details = {"cached_tokens": 6}
        return {"prompt_tokens": 10, "completion_tokens": output, "prompt_tokens_details": details}

    def told_at_the_end(output: int) -> dict[str, object]:
        told = openai_usage(output)
        return told if output == 3 else told | {"prompt_tokens_details": None}

    for usage_of in (openai_usage, told_at_the_end):
        engine.plan = Plan(usage_of=usage_of, pace_seconds=0.01)
        *_, last, _ = await stream_events(world)
        assert json.loads(last)["usage"] == usage(10, 6, 3)
    rows = await world.settled(2)
    assert {(row.hit_tokens, row.miss_tokens, row.output_tokens) for row in rows} == {(6, 4, 3)}


async def test_tool_calls_are_merged(world: World, engine: Engine) -> None:
    def part(**function: str) -> dict[str, object]:
        return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}

    parts = [part(name="f", arguments=""), part(arguments='{"a"'), part(arguments=":1}")]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in parts]
    engine.plan = Plan(words=[], extra_chunks=parts, finish_reason="tool_calls")
    assert choices
    async with world.client(world.tenant()) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "f", '{"a":1}')


async def test_comments_pass(world: World, engine: Engine) -> None:
    engine.plan = Plan(comments=True)
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    async with world.http(world.tenant()) as http:
        answer = await http.post("/chat/completions", json=body)
    assert answer.text.count(": keep-alive\n\n") == 6
    async with world.client(world.tenant()) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        assert len([chunk async for chunk in stream]) == 5


async def test_the_engine_gets_what_the_hold_covers(world: World, engine: Engine) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_completion_tokens": 7, "cache_salt": "mine"}
    key = world.tenant()
    async with world.http(key) as http:
        answer = await http.post("/chat/completions", json=body | {"user_id": "u", "priority": 9})
        await http.post("/chat/completions", json=body)
    async with world.http(world.tenant()) as http:
        await http.post("/chat/completions", json=body)
    first, second, third = engine.requests
    assert first["max_tokens"] == 7
    assert first["max_prompt_tokens"] > 0
    assert first["stream"] is True
    assert first["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert first["thinking"] == {"type": "enabled"}
    assert not {"max_completion_tokens", "priority", "user_id"} & first.keys()
    salts = [request["cache_salt"] for request in (first, second, third)]
    assert len({*salts, "mine"}) == 4
    assert engine.headers[0]["x-request-id"] == answer.headers["x-request-id"]
    await world.settled(3)


async def test_the_same_tenant_keeps_its_salt(world: World, engine: Engine) -> None:
    async with world.http(world.tenant()) as http:
        for _ in range(2):
            await http.post("/chat/completions", json={"model": MODEL, "messages": HELLO})
    first, second = engine.requests
    assert first["cache_salt"] == second["cache_salt"]


@pytest.mark.parametrize(
    ("fields", "max_tokens", "thinking"),
    [
        ({"thinking": {"type": "disabled"}}, 8_192, "disabled"),
        ({"reasoning_effort": "none"}, 8_192, "disabled"),
        ({}, 65_536, "enabled"),
        ({"reasoning_effort": "max"}, 100_000, "enabled"),
        ({"max_tokens": 5}, 5, "enabled"),
    ],
)
async def test_the_default_limit_follows_thinking(
    world: World, engine: Engine, fields: dict[str, object], max_tokens: int, thinking: str
) -> None:
    async with world.http(world.tenant()) as http:
        body = {"model": MODEL, "messages": HELLO} | fields
        assert (await http.post("/chat/completions", json=body)).status_code == 200
    assert engine.requests[0]["max_tokens"] == max_tokens
    assert engine.requests[0]["thinking"] == {"type": thinking}


async def test_an_omitted_limit_shrinks_to_the_balance(world: World, engine: Engine) -> None:
    async with world.http(world.tenant("0.001")) as http:
        body = {"model": MODEL, "messages": HELLO}
        assert (await http.post("/chat/completions", json=body)).status_code == 200
    assert 1 <= engine.requests[0]["max_tokens"] < 3_572


async def test_a_longer_prompt_is_held_again_once(world: World, engine: Engine) -> None:
    engine.plan = Plan(true_prompt_tokens=5_000, prompt_tokens=5_000)
    async with world.http(world.tenant()) as http:
        body = {"model": MODEL, "messages": HELLO, "max_tokens": 5}
        assert (await http.post("/chat/completions", json=body)).status_code == 200
    first, second = engine.requests
    assert first["max_prompt_tokens"] < 5_000
    assert second["max_prompt_tokens"] == 5_000
    (row,) = await world.settled()
    assert (row.miss_tokens, row.output_tokens) == (5_000, 3)


async def test_the_journal_tells_the_hold_that_a_restore_needs(
    world: World, engine: Engine
) -> None:
    engine.plan = Plan(true_prompt_tokens=5_000, prompt_tokens=5_000)
    async with world.http(world.tenant()) as http:
        body = {"model": MODEL, "messages": HELLO, "max_tokens": 5}
        assert (await http.post("/chat/completions", json=body)).status_code == 200
    (row,) = await world.settled()
    (folder,) = (it for it in world.settings.journal_dir.iterdir() if it.is_dir())
    opened = read(folder).traces[row.request_id].opened
    assert (opened.prompt_tokens, opened.completion_tokens) == (5_000, 5)
    assert opened.amount_p == row.held_p


async def test_models(world: World) -> None:
    async with world.client(world.tenant()) as client:
        (model,) = (await client.models.list()).data
        assert model.id == MODEL
        one = await client.models.retrieve(MODEL)
    assert one.context_window == 100_000
    assert one.max_output_tokens == 100_000


async def test_paths_without_v1_are_the_same(world: World) -> None:
    async with world.http(world.tenant()) as http:
        http.base_url = world.url
        body = {"model": MODEL, "messages": HELLO}
        assert (await http.post("/chat/completions", json=body)).status_code == 200
        assert (await http.get("/models")).status_code == 200


async def test_health_ready_and_metrics(world: World) -> None:
    async with world.http("no key needed") as http:
        http.base_url = world.url
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/ready")).json() == {"status": "ready"}
        assert "flashplane_gateway_requests" in (await http.get("/metrics")).text
