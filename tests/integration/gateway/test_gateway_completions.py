"""Text completions through the gateway: as chat in all but what is asked and said."""

import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from support.engine import Engine, Plan, usage
from support.gateway import MISS_RATE_P, MODEL, OUTPUT_RATE_P, World

BODY: dict[str, Any] = {"model": MODEL, "prompt": "def add(", "suffix": "return a + b"}
PLAN = Plan(words=["a", ", b", "):\n"], token_ids=True, pace_seconds=0.002)


async def post(world: World, path: str, body: dict[str, Any]) -> httpx.Response:
    async with world.http(world.tenant()) as http:
        return await http.post(f"{world.url}{path}", json=body)


@pytest.mark.parametrize("prefix", ["", "/v1", "/beta"])
async def test_a_gap_is_filled_and_billed(world: World, engine: Engine, prefix: str) -> None:
    engine.plan = PLAN
    answer = await post(world, f"{prefix}/completions", BODY | {"max_tokens": 9})
    whole = answer.json()
    assert whole["object"] == "text_completion"
    (choice,) = whole["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a, b):\n", "stop")
    assert whole["usage"] == usage(10, 0, 3)
    (request,) = engine.requests
    assert engine.paths == ["/v1/completions"]
    assert {name: request[name] for name in BODY} == BODY
    assert "thinking" not in request
    (row,) = await world.settled()
    assert row.charge_p == 10 * MISS_RATE_P + 3 * OUTPUT_RATE_P
    assert not row.thinking


async def test_a_gap_may_be_at_the_beginning(world: World, engine: Engine) -> None:
    answer = await post(world, "/beta/completions", BODY | {"prompt": ""})
    assert answer.status_code == 200, answer.text
    assert engine.requests[0]["prompt"] == ""


async def test_the_official_client_streams_it(world: World, engine: Engine) -> None:
    engine.plan = PLAN
    async with world.client(world.tenant()) as client:
        stream = await client.completions.create(
            **BODY, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    *rest, last = chunks
    assert "".join(chunk.choices[0].text for chunk in rest) == "a, b):\n"
    assert rest[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == 3
    assert engine.requests[0]["max_tokens"] == 4_096


async def test_it_goes_on_when_its_engine_is_lost(world: World, engine: Engine) -> None:
    for cut in range(len(PLAN.words) + 1):
        engine.plans = [replace(PLAN, die_after_chunks=cut), PLAN]
        answer = await post(world, "/v1/completions", BODY | {"stream": True})
        *chunks, done = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part]
        assert done == "[DONE]"
        texts = [json.loads(chunk)["choices"][0]["text"] for chunk in chunks]
        assert texts == ["a", ", b", "):\n", ""]
    rows = await world.settled(len(PLAN.words) + 1)
    assert {(row.miss_tokens, row.output_tokens) for row in rows} == {(10, 3)}


async def test_a_longer_text_is_held_again_once(world: World, engine: Engine) -> None:
    engine.plan = replace(PLAN, true_prompt_tokens=5_000, prompt_tokens=5_000)
    answer = await post(world, "/v1/completions", BODY | {"max_tokens": 5})
    assert answer.status_code == 200
    (row,) = await world.settled()
    assert (row.miss_tokens, row.output_tokens) == (5_000, 3)


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"prompt": None}, 422, "prompt"),
        ({"prompt": "", "suffix": ""}, 422, "prompt"),
        ({"prompt": [1, 2, 3]}, 422, "prompt"),
        ({"suffix": ["a"]}, 422, "suffix"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"n": 3}, 422, "n"),
    ],
)
async def test_what_is_no_completion(
    world: World, engine: Engine, change: dict[str, Any], status: int, param: str
) -> None:
    answer = await post(world, "/v1/completions", BODY | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert not engine.requests


async def test_a_prompt_beyond_the_context_is_to_blame(world: World, engine: Engine) -> None:
    engine.plan = Plan(true_prompt_tokens=200_000)
    async with world.client(world.tenant()) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(**BODY)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


async def test_beta_is_a_prefix_of_chat_as_well(world: World) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    assert (await post(world, "/beta/chat/completions", body)).status_code == 200
