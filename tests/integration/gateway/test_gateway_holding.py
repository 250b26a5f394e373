"""Requests for a deployment that has no replica yet: held, in order, and told why they wait."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support.books import violations
from support.engine import Engine, Plan, running_engine
from support.gateway import MODEL, World, make_world, running_gateway

POOL = "serving/flash"
HELD = {POOL: 1}
KEEP_ALIVE = ": keep-alive"

Opens = Callable[..., AbstractAsyncContextManager[World]]


def body(content: str = "Hello", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "max_tokens": 50, **fields}


@pytest.fixture
def pool_world(database_url: str, redis_url: str, tmp_path: Path) -> Opens:
    """Opens a gateway, with settings, in front of a deployment without replicas."""

    @asynccontextmanager
    async def open_world(
        offered: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[World]:
        with make_world(database_url, redis_url, tmp_path / "journal", **settings) as world:
            told = {"phase": "Loading", "eta_seconds": 41.2, "hold_timeout_seconds": 60.0}
            world.offer(POOL, **told | (offered or {}))
            async with running_gateway(world):
                yield world

    return open_world


async def send(http: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await http.post("/chat/completions", json=body(**fields))


async def test_held_requests_are_told_of_and_served_in_order(
    pool_world: Opens, engine: Engine
) -> None:
    async with pool_world() as world, world.http(world.tenant()) as http:
        calls = []
        for number in range(3):
            calls.append(asyncio.create_task(send(http, content=str(number))))
            await world.reported(lambda it, held=number + 1: it.held == {POOL: held})
        world.publish(engine.url, deployment=POOL)
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200] * 3
        assert [it["messages"][0]["content"] for it in engine.requests] == list("012")
        await world.reported(lambda it: it.held == {})
        rows = await world.settled(3)
        assert {row.finish_reason for row in rows} == {"stop"}


async def test_a_stream_is_kept_alive_and_then_answered(pool_world: Opens, engine: Engine) -> None:
    async with pool_world(hold_silence_seconds=0) as world, world.http(world.tenant()) as http:
        request = body(stream=True)
        async with http.stream("POST", "/chat/completions", json=request) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.aiter_lines()
            assert await anext(lines) == KEEP_ALIVE
            assert engine.requests == []
            world.publish(engine.url, deployment=POOL)
            rest = [line async for line in lines if line and line != KEEP_ALIVE]
    assert rest[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in rest)


async def test_the_official_client_waits_through_both_kinds_of_keep_alive(
    pool_world: Opens, engine: Engine
) -> None:
    silence = {"hold_silence_seconds": 0, "hold_silence_whole_seconds": 0}
    async with pool_world(**silence) as world, world.client(world.tenant()) as client:
        ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}

        async def streamed() -> str:
            chunks = await client.chat.completions.create(**ask, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        async def whole() -> str | None:
            completion = await client.chat.completions.create(**ask)
            return completion.choices[0].message.content

        waiting = asyncio.gather(streamed(), whole())
        await world.reported(lambda it: it.held == {POOL: 2})
        await asyncio.sleep(1.2)  # one word of both, at least
        world.publish(engine.url, deployment=POOL)
        assert await waiting == ["Hello world!"] * 2


async def test_a_whole_answer_follows_blank_lines(pool_world: Opens, engine: Engine) -> None:
    async with (
        pool_world(hold_silence_whole_seconds=0) as world,
        world.http(world.tenant()) as http,
        http.stream("POST", "/chat/completions", json=body()) as response,
    ):
        assert (response.status_code, response.headers["content-type"]) == (
            200,
            "application/json",
        )
        text = response.aiter_text()
        begun = await anext(text)
        world.publish(engine.url, deployment=POOL)
        rest = "".join([part async for part in text])
    assert begun.strip() == ""
    assert json.loads(begun + rest)["choices"][0]["message"]["content"] == "Hello world!"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_wait_in_vain_has_a_status_that_says_when_to_return(
    pool_world: Opens, stream: bool
) -> None:
    offered = {"hold_timeout_seconds": 0.3}
    async with pool_world(offered) as world, world.http(world.tenant()) as http:
        answer = await send(http, stream=stream)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "42"
        error = answer.json()["error"]
        assert error["code"] == "model_starting"
        assert "phase Loading" in error["message"]
        assert "42 s" in error["message"]
        (row,) = await world.settled(1)
        assert (row.finish_reason, row.charge_p) == ("error", 0)


async def test_after_the_first_word_a_wait_in_vain_is_the_streams_last_event(
    pool_world: Opens,
) -> None:
    offered = {"hold_timeout_seconds": 0.3}
    async with pool_world(offered, hold_silence_seconds=0) as world:
        async with world.http(world.tenant()) as http:
            answer = await send(http, stream=True)
        assert answer.status_code == 200
        *comments, last = [line for line in answer.text.split("\n") if line]
        assert set(comments) == {KEEP_ALIVE}
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_starting"
        assert [row.finish_reason for row in await world.settled(1)] == ["error"]


async def test_after_the_first_blank_line_it_is_the_body(pool_world: Opens) -> None:
    offered = {"hold_timeout_seconds": 0.3}
    async with pool_world(offered, hold_silence_whole_seconds=0) as world:
        async with world.http(world.tenant()) as http:
            answer = await send(http)
        assert (answer.status_code, answer.text[0]) == (200, "\n")
        assert answer.json()["error"]["code"] == "model_starting"
        await world.settled(1)


async def test_who_cannot_pay_is_told_before_the_wait(pool_world: Opens) -> None:
    async with pool_world() as world, world.http(world.tenant("0")) as http:
        assert (await send(http)).status_code == 402


async def test_the_deployments_context_bounds_the_hold(pool_world: Opens, engine: Engine) -> None:
    offered = {"max_model_len": 300}
    async with pool_world(offered) as world, world.http(world.tenant()) as http:
        call = asyncio.create_task(send(http, content="x" * 5000))
        await world.reported(lambda it: it.held == HELD)
        world.publish(engine.url, deployment=POOL, max_model_len=300)
        assert (await call).status_code == 200
    assert engine.requests[0]["max_prompt_tokens"] == 300


async def test_a_client_that_leaves_frees_its_place_and_its_money(pool_world: Opens) -> None:
    async with pool_world(hold_max_requests=1) as world, world.http(world.tenant()) as http:
        call = asyncio.create_task(send(http))
        await world.reported(lambda it: it.held == HELD)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await world.reported(lambda it: it.held == {})
        (row,) = await world.settled(1)
        assert (row.finish_reason, row.charge_p) == ("aborted", 0)


async def test_no_more_wait_than_there_is_room(pool_world: Opens, engine: Engine) -> None:
    async with pool_world(hold_max_requests=2) as world, world.http(world.tenant()) as http:
        calls = [asyncio.create_task(send(http)) for _ in range(2)]
        await world.reported(lambda it: it.held == {POOL: 2})
        answer = await send(http)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_starting")
        # What was turned away is demand too, for a moment.
        await world.reported(lambda it: it.held == {POOL: 3})
        world.publish(engine.url, deployment=POOL)
        assert [it.status_code for it in await asyncio.gather(*calls)] == [200, 200]
        await world.settled(2)


@pytest.mark.parametrize(
    "offered", [{"startable": False, "phase": "Stopped"}, {"hold_timeout_seconds": 0}]
)
async def test_where_waiting_is_no_use_nothing_is_set_aside(
    pool_world: Opens, offered: dict[str, Any]
) -> None:
    async with pool_world(offered) as world, world.http(world.tenant()) as http:
        answer = await send(http)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert offered.get("phase", "Loading") in answer.json()["error"]["message"]
        demand = {} if "startable" in offered else HELD
        await world.reported(lambda it: it.held == demand)
        assert world.usage() == []
        assert violations(world.settings.database_url) == []


async def test_a_deployment_that_is_stopped_ends_the_wait(pool_world: Opens) -> None:
    async with pool_world() as world, world.http(world.tenant()) as http:
        call = asyncio.create_task(send(http))
        await world.reported(lambda it: it.held == HELD)
        world.offer(POOL, startable=False, phase="Stopped")
        answer = await call
        assert answer.status_code == 503
        assert "phase Stopped" in answer.json()["error"]["message"]
        await world.settled(1)


async def test_a_gateway_that_stops_ends_the_wait_and_the_books_are_exact(
    pool_world: Opens,
) -> None:
    async with pool_world() as world:
        key = world.tenant()
        http = world.http(key)
        call = asyncio.create_task(send(http))
        await world.reported(lambda it: it.held == HELD)
    answer = await call
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_not_ready")
    await http.aclose()
    (row,) = await world.settled(1)
    assert (row.finish_reason, row.charge_p) == ("aborted", 0)


async def test_a_replica_without_room_for_all_who_waited_is_asked_again(
    pool_world: Opens, engine: Engine
) -> None:
    full = Plan(status=503, error={"error": {"message": "full", "code": "overloaded"}})
    engine.plans = [full] * 3
    async with pool_world() as world, world.http(world.tenant()) as http:
        call = asyncio.create_task(send(http))
        await world.reported(lambda it: it.held == HELD)
        world.publish(engine.url, deployment=POOL)
        assert (await call).status_code == 200
    assert len(engine.requests) == 4


async def test_a_stream_lost_with_the_last_replica_goes_on_at_the_next(
    pool_world: Opens, engine: Engine
) -> None:
    engine.plan = Plan(words=["x"] * 20, token_ids=True, pace_seconds=0.1)
    async with pool_world() as world, running_engine() as other:
        other.plan = Plan(words=["x"] * 20, token_ids=True)
        world.publish(engine.url, deployment=POOL)
        async with world.http(world.tenant()) as http:
            request = body(stream=True)
            async with http.stream("POST", "/chat/completions", json=request) as response:
                lines = response.aiter_lines()
                while '"x"' not in await anext(lines):
                    pass
                world.withdraw("r1")
                await engine.stop()
                await world.reported(lambda it: it.held == HELD)
                world.publish(other.url, name="r2", deployment=POOL)
                rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert other.requests[0]["resume_token_ids"]
        (row,) = await world.settled(1)
        assert (row.finish_reason, row.output_tokens) == ("stop", 20)


async def test_a_dedicated_deployment_at_zero_is_woken_by_its_tenant_alone(
    pool_world: Opens, engine: Engine
) -> None:
    own = f"{MODEL}@prod"
    async with pool_world() as world:
        key, other = world.tenant("0"), world.tenant()
        told = {"model": own, "path": "dedicated", "tenant_id": world.tenant_id(key)}
        world.offer("a/prod", hold_timeout_seconds=30, **told)
        async with world.http(key) as http, world.http(other) as stranger:
            async with asyncio.timeout(5):
                while (await http.get(f"/models/{own}")).status_code != 200:
                    await asyncio.sleep(0.05)
            assert (await send(stranger, model=own)).status_code == 404
            call = asyncio.create_task(send(http, model=own))
            await world.reported(lambda it: it.held == {"a/prod": 1})
            world.publish(engine.url, deployment="a/prod", **told)
            assert (await call).status_code == 200


async def test_an_official_client_is_told_to_come_back(pool_world: Opens) -> None:
    offered = {"startable": False, "phase": "Stopped"}
    async with pool_world(offered) as world, world.client(world.tenant()) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hi"}]
            )
    assert caught.value.code == "model_starting"
