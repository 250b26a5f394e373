"""Bad requests and bad engines: a typed answer in OpenAI's shape, nothing held, one bill."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from support.engine import Engine, Plan, running_engine, usage
from support.gateway import MISS_RATE_P, MODEL, OUTPUT_RATE_P, World

from controlplane.tenants import keys
from controlplane.tenants.models import ApiKey

HELLO = [{"role": "user", "content": "Hello"}]
BODY: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 10}


async def post(world: World, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    async with world.http(key or world.tenant()) as http:
        return await http.post("/chat/completions", json=body)


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert ("retry-after" in response.headers) == (status == 503)
    return error


async def test_a_stranger_is_refused_before_its_body_is_waited_for(world: World) -> None:
    port = httpx.URL(world.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
    async with asyncio.timeout(3):
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()


@pytest.mark.parametrize("key", ["nonsense", "dsf_a_b_c", "\xff"])
async def test_an_unknown_key(world: World, engine: Engine, key: str) -> None:
    async with httpx.AsyncClient(base_url=world.url) as http:
        headers = [(b"authorization", b"Bearer " + key.encode("latin-1"))]
        answer = await http.post("/v1/chat/completions", json=BODY, headers=headers)
        assert_error(answer, 401, "invalid_api_key")
        assert_error(await http.get("/v1/models", headers=headers), 401, "invalid_api_key")
        assert_error(await http.post("/v1/chat/completions", json=BODY), 401, "invalid_api_key")
    assert not engine.requests


async def test_a_revoked_key_dies_within_a_second(world: World) -> None:
    key = world.tenant()
    assert (await post(world, BODY, key)).status_code == 200
    with world.sessions.begin() as session:
        (row,) = session.query(ApiKey)
        keys.revoke(session, key_id=row.id)
    # A live cache entry may open the door, but no money is held for a revoked key.
    assert_error(await post(world, BODY, key), 401, "invalid_api_key")
    async with asyncio.timeout(1.5), world.http(key) as http:
        while (await http.get("/models")).status_code != 401:
            await asyncio.sleep(0.05)
    await world.settled(1)


async def test_no_balance(world: World, engine: Engine) -> None:
    error = assert_error(await post(world, BODY, world.tenant("0")), 402, "insufficient_balance")
    assert "0.00 USD available" in error["message"]
    assert not engine.requests
    await world.settled(0)


async def test_a_given_limit_is_never_shrunk(world: World) -> None:
    key = world.tenant("0.0001")
    assert_error(await post(world, BODY | {"max_tokens": 1000}, key), 402, "insufficient_balance")
    await world.settled(0)


async def test_a_longer_prompt_than_the_balance_covers(world: World, engine: Engine) -> None:
    engine.plan = Plan(true_prompt_tokens=50_000)
    key = world.tenant("0.001")
    assert_error(await post(world, BODY, key), 402, "insufficient_balance")
    (row,) = await world.settled(1)
    assert row.charge_p == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"nul", b"\xff\xfe", b'{"a":' * 100_000])
async def test_a_malformed_body(world: World, content: bytes) -> None:
    async with world.http(world.tenant()) as http:
        answer = await http.post("/chat/completions", content=content)
    assert_error(answer, 400, "invalid_request")


async def test_a_body_too_deep(world: World) -> None:
    deep: Any = "x"
    for _ in range(70):
        deep = [deep]
    body = BODY | {"tools": deep}
    assert "64 levels" in assert_error(await post(world, body), 400, "invalid_request")["message"]


async def test_a_body_too_large(world: World, engine: Engine) -> None:
    words = "x" * world.settings.max_body_bytes
    body = BODY | {"messages": [{"role": "user", "content": words}]}
    assert_error(await post(world, body), 413, "request_too_large")

    async def unannounced():  # type: ignore[no-untyped-def]
        for _ in range(9):
            yield b"x" * 2**20

    async with world.http(world.tenant()) as http:
        answer = await http.post("/chat/completions", content=unannounced())
    assert_error(answer, 413, "request_too_large")


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ({"messages": []}, 422),
        ({"messages": "hello"}, 422),
        ({"model": None}, 422),
        ({"model": 3}, 422),
        ({"max_tokens": 0}, 400),
        ({"max_tokens": 400_000}, 400),
        ({"max_tokens": "many"}, 422),
        ({"n": 2}, 422),
        ({"n": 0}, 422),
        ({"reasoning_effort": "colossal"}, 422),
        ({"thinking": {"type": "perhaps"}}, 422),
        ({"stream": "yes"}, 422),
        ({"user_id": "a b"}, 400),
    ],
)
async def test_a_field_out_of_its_domain(world: World, field: dict[str, Any], status: int) -> None:
    answer = await post(world, BODY | field)
    assert_error(answer, status, "invalid_request" if status == 400 else "invalid_parameter")
    await world.settled(0)


async def test_an_unknown_model(world: World) -> None:
    async with world.client(world.tenant()) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="none", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("none")
    assert caught.value.code == "model_not_found"


async def test_another_method(world: World) -> None:
    async with world.http(world.tenant()) as http:
        assert_error(await http.get("/chat/completions"), 405, "method_not_allowed")


async def test_a_refusal_of_the_engine_is_passed_on(world: World, engine: Engine) -> None:
    refusal = {
        "message": "top_p: at most 1",
        "type": "x",
        "param": "top_p",
        "code": "invalid_parameter",
    }
    engine.plan = Plan(status=422, error={"error": refusal})
    error = assert_error(await post(world, BODY), 422, "invalid_parameter")
    assert (error["message"], error["param"]) == ("top_p: at most 1", "top_p")
    assert len(engine.requests) == 1
    (row,) = await world.settled(1)
    assert (row.charge_p, row.finish_reason) == (0, "error")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_beyond_the_context_tells_both_lengths(
    world: World, engine: Engine, stream: bool
) -> None:
    lengths = {"prompt_tokens": 5000, "max_model_len": 4096}
    refusal = {"message": "too long", "code": "context_length_exceeded"} | lengths
    engine.plan = Plan(status=400, error={"error": refusal})
    error = assert_error(
        await post(world, BODY | {"stream": stream}), 400, "context_length_exceeded"
    )
    assert "5000" in error["message"]
    assert "4096" in error["message"]
    await world.settled(1)


async def test_a_true_count_beyond_the_context(world: World, engine: Engine) -> None:
    engine.plan = Plan(true_prompt_tokens=200_000)
    error = assert_error(await post(world, BODY), 400, "context_length_exceeded")
    assert "100000" in error["message"]
    assert "200000" in error["message"]
    assert len(engine.requests) == 1
    await world.settled(1)


async def test_no_replica(world: World) -> None:
    world.withdraw("r1")
    async with asyncio.timeout(3):
        while (answer := await post(world, BODY)).status_code == 200:
            await asyncio.sleep(0.1)
    assert_error(answer, 503, "no_replica")


async def test_an_engine_that_is_down(world: World, engine: Engine) -> None:
    await engine.stop()
    assert_error(await post(world, BODY), 503, "engine_unavailable")
    await engine.start()
    (row,) = await world.settled(1)
    assert (row.charge_p, row.replica) == (0, None)


@pytest.mark.parametrize(
    "first", [Plan(die_before_first_byte=True), Plan(status=503, error={"error": {"message": "x"}})]
)
async def test_another_try_before_the_first_byte(world: World, engine: Engine, first: Plan) -> None:
    engine.plans = [first]
    answer = await post(world, BODY)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello world!"
    assert len(engine.requests) == 2
    (row,) = await world.settled(1)
    assert row.output_tokens == 3


async def test_another_replica_is_tried_first(world: World, engine: Engine) -> None:
    async with running_engine() as sound:
        world.publish(sound.url, name="r2")
        async with asyncio.timeout(3):
            while not sound.requests:
                await post(world, BODY)
        engine.plan = Plan(die_before_first_byte=True)
        sent = len(engine.requests)
        for _ in range(4):
            assert (await post(world, BODY)).status_code == 200
        assert len(engine.requests) > sent
    await world.settled(len(world.usage()) or len(sound.requests) + sent)


async def test_a_failed_generation_is_not_tried_again(world: World, engine: Engine) -> None:
    engine.plan = Plan(status=500, error={"error": {"message": "x"}})
    assert_error(await post(world, BODY), 503, "engine_failed")
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n\r\ndata: {]\n\n"]
)
async def test_what_is_no_engine(world: World, engine: Engine, garbage: bytes) -> None:
    engine.plan = Plan(garbage=garbage)
    assert_error(await post(world, BODY), 503, "engine_failed")
    await world.settled(1)


async def test_a_delta_that_makes_no_sense(world: World, engine: Engine) -> None:
    engine.plan = Plan(extra_chunks=[{"content": 3}])
    assert_error(await post(world, BODY), 503, "engine_failed")
    await world.settled(1)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(die_after_chunks=3),
        Plan(event_error_after_chunks=3),
        Plan(words=["Hello", " world"], finish_reason=None, usage_chunk=False),
        Plan(words=["Hello", " world"], finish_reason=None, usage_chunk=False, done=False),
    ],
)
async def test_an_answer_that_breaks_off(world: World, engine: Engine, plan: Plan) -> None:
    plan.pace_seconds = 0.02
    engine.plan = plan
    answer = await post(world, BODY | {"stream": True})
    *chunks, last = [line for line in answer.text.split("\n\n") if line]
    assert (
        "".join(
            json.loads(c.removeprefix("data: "))["choices"][0]["delta"]["content"] for c in chunks
        )
        == "Hello world"
    )
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_failed"
    (row,) = await world.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("error", 2)
    assert row.charge_p == 10 * MISS_RATE_P + 2 * OUTPUT_RATE_P
    assert len(engine.requests) == 1


async def test_a_whole_answer_that_breaks_off_bills_the_same(world: World, engine: Engine) -> None:
    engine.plan = Plan(die_after_chunks=3, pace_seconds=0.02)
    assert_error(await post(world, BODY), 503, "engine_failed")
    (row,) = await world.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("error", 2)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_aborts_the_engine(
    world: World, engine: Engine, stream: bool
) -> None:
    engine.plan = Plan(words=["x"] * 8, stall_after_chunks=5)
    async with world.http(world.tenant()) as http:
        request = http.build_request("POST", "/chat/completions", json=BODY | {"stream": stream})
        sending = asyncio.create_task(http.send(request))
        while engine.running == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await engine.until(lambda: engine.aborted == 1)
    (row,) = await world.settled(1)
    assert (row.finish_reason, row.output_tokens) == ("aborted", 4)


async def test_a_client_that_leaves_before_the_first_byte(world: World, engine: Engine) -> None:
    engine.plan = Plan(stall_after_chunks=0)
    async with world.http(world.tenant()) as http:
        sending = asyncio.create_task(http.post("/chat/completions", json=BODY))
        while engine.running == 0:
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await engine.until(lambda: engine.aborted == 1)
    (row,) = await world.settled(1)
    assert (row.finish_reason, row.charge_p) == ("aborted", 0)


async def test_usage_that_falls_or_makes_no_sense_cannot_lower_the_bill(
    world: World, engine: Engine
) -> None:
    told = {0: usage(10, 0, 0), 1: usage(10, 0, 4), 2: usage(10, 99, 1), 3: None}
    engine.plan = Plan(usage_of=told.__getitem__, pace_seconds=0.02)
    assert (await post(world, BODY)).status_code == 200
    (row,) = await world.settled(1)
    assert row.output_tokens == 4


async def test_usage_beyond_the_hold_is_not_billed(world: World, engine: Engine) -> None:
    engine.plan = Plan(usage_of=lambda _: usage(10, 0, 10**12))
    assert (await post(world, BODY)).status_code == 200
    (row,) = await world.settled(1)
    assert row.charge_p == 10 * MISS_RATE_P + 10 * OUTPUT_RATE_P


async def test_connections_are_kept(world: World, engine: Engine) -> None:
    for _ in range(3):
        assert (await post(world, BODY)).status_code == 200
    assert engine.connections == 1


async def test_a_connection_closed_while_idle_is_replaced(world: World, engine: Engine) -> None:
    assert (await post(world, BODY)).status_code == 200
    port = int(engine.url.rpartition(":")[2])
    await engine.stop()
    await engine.start(port)
    assert (await post(world, BODY)).status_code == 200
    assert engine.connections == 2
