"""A replica that drains: nothing new, nothing lost, and an honest word when it is empty."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from support.engine import Engine, Plan, running_engine
from support.gateway import MODEL, World, make_world, running_gateway

BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 200,
    "stream": True,
}


async def test_a_drained_replica_finishes_its_streams_and_is_acknowledged(
    world: World, engine: Engine
) -> None:
    engine.plan = Plan(words=["x"] * 60, pace_seconds=0.03)
    async with running_engine() as other, world.http(world.tenant()) as http:
        async with http.stream("POST", "/chat/completions", json=BODY) as response:
            lines = response.aiter_lines()
            await anext(lines)
            world.publish(engine.url, draining=True)
            world.publish(other.url, name="r2")
            report = await world.reported(lambda it: "r1" in it.draining)
            assert (report.draining, report.inflight) == ({"r1": 1}, {"r1": 1})
            for _ in range(4):
                answer = await http.post("/chat/completions", json=BODY | {"stream": False})
                assert answer.status_code == 200
            assert (len(engine.requests), len(other.requests)) == (1, 4)
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert sum('"content": "x"' in line for line in rest) == 60
        report = await world.reported(lambda it: it.draining == {"r1": 0})
        assert "r1" not in report.inflight
    assert engine.aborted == 0


async def test_no_acknowledged_replica_is_asked_again(world: World, engine: Engine) -> None:
    """Requests pour in while replicas begin to drain: once a zero is told, it stays."""
    engine.plan = Plan(pace_seconds=0.005)
    acknowledged_at: dict[str, int] = {}
    async with running_engine() as second, running_engine() as rest:
        engines = {"r1": engine, "r2": second}
        second.plan = rest.plan = engine.plan
        world.publish(second.url, name="r2")
        world.publish(rest.url, name="r3")
        async with world.http(world.tenant()) as http:
            over = asyncio.Event()

            async def pour() -> None:
                while not over.is_set():
                    answer = await http.post("/chat/completions", json=BODY | {"stream": False})
                    assert answer.status_code == 200

            pouring = [asyncio.create_task(pour()) for _ in range(8)]
            for name, it in engines.items():
                world.publish(it.url, name=name, draining=True)
                await world.reported(lambda report, name=name: report.draining.get(name) == 0)
                acknowledged_at[name] = len(it.requests)
                assert it.running == 0
            asked = len(rest.requests)
            await rest.until(lambda: len(rest.requests) > asked + 20)
            over.set()
            await asyncio.gather(*pouring)
    assert {name: len(it.requests) for name, it in engines.items()} == acknowledged_at


async def test_a_lost_stream_does_not_resume_on_a_draining_replica(
    world: World, engine: Engine
) -> None:
    engine.plan = Plan(words=["x"] * 20, token_ids=True, die_after_chunks=5, pace_seconds=0.2)
    async with running_engine() as draining, running_engine() as other:
        draining.plan = other.plan = Plan(words=["x"] * 20, token_ids=True)
        async with (
            world.http(world.tenant()) as http,
            http.stream("POST", "/chat/completions", json=BODY) as response,
        ):
            lines = response.aiter_lines()
            await anext(lines)
            world.publish(draining.url, name="r2", draining=True)
            world.publish(other.url, name="r3")
            await world.reported(lambda it: "r2" in it.draining)
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert (len(draining.requests), len(other.requests)) == (0, 1)


async def test_only_draining_replicas_are_none(world: World, engine: Engine) -> None:
    world.publish(engine.url, draining=True)
    await world.reported(lambda it: "r1" in it.draining)
    async with world.http(world.tenant()) as http:
        answer = await http.post("/chat/completions", json=BODY)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_replica"
    assert answer.headers["retry-after"] == "1"
    assert world.usage() == []


async def test_a_canary_gets_its_share(world: World, engine: Engine) -> None:
    async with running_engine() as canary, world.http(world.tenant()) as http:
        world.publish(engine.url, deployment="d/m", weight=90)
        world.publish(canary.url, name="r2", deployment="d/m", weight=10)
        # Known once it has been asked: until then all requests may go to the first.
        async with asyncio.timeout(5):
            while not canary.requests:
                assert (await http.post("/chat/completions", json=BODY)).status_code == 200
        asked = (len(engine.requests), len(canary.requests))
        for _ in range(40):
            assert (await http.post("/chat/completions", json=BODY)).status_code == 200
        assert len(canary.requests) - asked[1] == pytest.approx(4, abs=1)
        assert len(engine.requests) - asked[0] == pytest.approx(36, abs=1)


async def test_latency_and_errors_are_reported_by_replica(world: World, engine: Engine) -> None:
    engine.plan = Plan(words=["x"] * 6, pace_seconds=0.01)
    async with running_engine() as failing, world.http(world.tenant()) as http:
        failing.plan = Plan(status=500, error={"error": {"message": "no", "code": "x"}})
        assert (await http.post("/chat/completions", json=BODY)).status_code == 200
        world.publish(failing.url)
        async with asyncio.timeout(5):
            while not failing.requests:
                await http.post("/chat/completions", json=BODY)
    report = await world.reported(lambda it: bool(it.latency) and it.latency["r1"].errors == 1)
    told = report.latency["r1"]
    assert told.requests >= 2
    assert told.ttft_p95_ms is not None
    assert told.itl_p95_ms is not None
    assert 5 < told.itl_p95_ms < 500


async def test_a_clean_end_withdraws_the_report(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        async with running_gateway(world):
            await world.reported(lambda it: it.gateway == "local")
        assert world.reports() == []


async def test_engines_are_shown_the_token(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    settings = {"engine_token": SecretStr("t0ken")}
    with make_world(database_url, redis_url, tmp_path / "journal", **settings) as world:
        world.publish(engine.url)
        async with running_gateway(world), world.http(world.tenant()) as http:
            assert (await http.post("/chat/completions", json=BODY)).status_code == 200
    assert engine.headers[0]["authorization"] == "Bearer t0ken"
