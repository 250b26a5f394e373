"""Killed gateways, lost servers, full disks: the bill is what the journal last said."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from support.engine import Engine, Plan
from support.gateway import MODEL, World, make_world, running_gateway
from support.gateway_child import COMMAND, environment, gateway_process
from support.servers import KillableServer, killable

from controlplane.accounts import epochs
from controlplane.accounts.models import GatewayEpoch
from controlplane.errors import StartupError
from controlplane.gateway.app import create_app
from controlplane.gateway.polling import POLL_SECONDS
from controlplane.settings import Settings
from controlplane.supervisor.valkey import Valkey

BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 200,
    "stream": True,
}
SLOW = Plan(words=["x"] * 100, pace_seconds=0.01)


@pytest.fixture
def idle_world(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> Iterator[World]:
    """A world whose gateway has not been started."""
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        yield world


async def read_some(http: httpx.AsyncClient, read: int, when_read: asyncio.Event) -> list[str]:
    """Stream an answer; set `when_read` after `read` events; return every event seen."""
    seen: list[str] = []
    try:
        async with http.stream("POST", "/chat/completions", json=BODY) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    seen.append(line.removeprefix("data: "))
                if len(seen) == read:
                    when_read.set()
    except httpx.HTTPError:
        pass
    return seen


async def test_kill_9_in_mid_stream_bills_what_was_journalled(
    idle_world: World, engine: Engine
) -> None:
    world, engine.plan = idle_world, SLOW
    key, events = world.tenant(), [asyncio.Event() for _ in range(5)]
    async with gateway_process(world) as process, world.http(key) as http:
        readers = [asyncio.create_task(read_some(http, 10, event)) for event in events]
        await asyncio.gather(*(event.wait() for event in events))
        process.kill()
        seen = await asyncio.gather(*readers)
    await engine.until(lambda: engine.aborted == 5)
    assert world.usage() == []
    async with running_gateway(world):
        rows = await world.settled(5)
    # What reached the client was journalled before; at most one more read was journalled unseen.
    received = sorted(len(chunks) - 1 for chunks in seen)
    billed = sorted(row.output_tokens for row in rows)
    assert all(row.finish_reason == "lost" for row in rows)
    assert all(got <= paid <= got + 3 for got, paid in zip(received, billed, strict=True)), (
        received,
        billed,
    )


async def test_sigterm_lets_streams_end_or_aborts_them(idle_world: World, engine: Engine) -> None:
    world = idle_world
    short, endless = (
        Plan(words=["x"] * 20, pace_seconds=0.02),
        Plan(words=["x"] * 1000, pace_seconds=0.02),
    )
    engine.plans = [short, endless]
    key, events = world.tenant(), [asyncio.Event(), asyncio.Event()]
    async with gateway_process(world) as process:
        async with world.http(key) as http:
            readers = []
            for event in events:
                readers.append(asyncio.create_task(read_some(http, 3, event)))
                await event.wait()
            process.send_signal(signal.SIGTERM)
            finished, aborted = await asyncio.gather(*readers)
        assert await asyncio.to_thread(process.wait, 10) is not None
    assert finished[-1] == "[DONE]"
    assert aborted[-1] != "[DONE]"
    # All was shipped before the end: nothing is left to a next start.
    rows = await world.settled(2)
    assert sorted(row.finish_reason for row in rows) == ["aborted", "stop"]


async def test_a_second_gateway_on_one_journal_is_refused(world: World) -> None:
    argv = [*COMMAND, "0"]
    second = await asyncio.create_subprocess_exec(
        *argv, env=environment(world), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        _, complaint = await second.communicate()
    assert second.returncode == 3
    assert f"belongs to a running gateway (pid {os.getpid()})" in complaint.decode()


async def test_a_lost_store_leaves_the_replicas_known(
    database_url: str, tmp_path: Path, server_folder: Path, engine: Engine
) -> None:
    sockets = server_folder / "valkey-to-kill"
    sockets.mkdir()
    store = Valkey(sockets / "data", sockets)
    with (
        killable(store, tmp_path / "valkey.log") as server,
        make_world(database_url, store.url, tmp_path / "journal") as world,
    ):
        world.publish(engine.url)
        async with running_gateway(world):
            server.kill()
            await asyncio.sleep(2 * POLL_SECONDS)
            assert (await post(world, world.tenant())).status_code == 200
            server.start()
            world.withdraw("r1")
            await asyncio.to_thread(world.publish, engine.url, name="r2")
            async with asyncio.timeout(5):
                while [row.replica for row in world.usage()][-1:] != ["r2"]:
                    assert (await post(world, world.tenant())).status_code == 200
                    await asyncio.to_thread(world.settle)


async def test_a_lost_database_stops_admission_and_loses_no_bill(
    postgres_to_kill: tuple[KillableServer, str], redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    server, database_url = postgres_to_kill
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        async with running_gateway(world):
            key = world.tenant()
            assert (await post(world, key)).status_code == 200
            engine.plan = SLOW
            begun = asyncio.Event()
            async with world.http(key) as http:
                reading = asyncio.create_task(read_some(http, 3, begun))
                await begun.wait()
                await asyncio.to_thread(server.kill)
                refused = await post(world, key)
                seen = await reading
            assert seen[-1] == "[DONE]"
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "database_unavailable"
            assert int(refused.headers["retry-after"]) >= 1
            await asyncio.to_thread(server.start)
            rows = await world.settled(2)
            engine.plan = Plan()
            assert (await post(world, key)).status_code == 200
        assert [row.output_tokens for row in rows] == [3, 100]


async def test_a_database_killed_under_load_leaves_exact_books(
    postgres_to_kill: tuple[KillableServer, str], redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    server, database_url = postgres_to_kill
    engine.plan = Plan(words=["x"] * 5, pace_seconds=0.01)
    statuses: list[int] = []

    async def keep_asking(key: str, stop: asyncio.Event) -> None:
        async with world.http(key) as http:
            while not stop.is_set():
                statuses.append((await http.post("/chat/completions", json=BODY)).status_code)

    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        async with running_gateway(world):
            stop, keys = asyncio.Event(), [world.tenant() for _ in range(3)]
            asking = [asyncio.create_task(keep_asking(keys[i % 3], stop)) for i in range(20)]
            await engine.until(lambda: len(engine.requests) > 40)
            await asyncio.to_thread(server.kill)
            async with asyncio.timeout(5):
                while statuses.count(503) < 5:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.start)
            count = len(engine.requests)
            await engine.until(lambda: len(engine.requests) > count + 40)
            stop.set()
            await asyncio.gather(*asking)
            rows = await world.settled_all()
    assert set(statuses) == {200, 503}
    assert len([row for row in rows if row.output_tokens == 5]) == statuses.count(200)


async def test_a_gateway_whose_epoch_was_closed_stops_admitting(world: World) -> None:
    key = world.tenant()
    assert (await post(world, key)).status_code == 200
    with world.sessions.begin() as session:
        for epoch in session.query(GatewayEpoch):
            epochs.close(session, epoch.id)
    answer = await post(world, key)
    assert answer.json()["error"]["code"] == "gateway_epoch_closed"
    async with world.http(key) as http:
        assert (await http.get(f"{world.url}/ready")).status_code == 503


async def test_neither_prompts_nor_keys_nor_answers_are_logged(
    world: World, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "controlplane")
    key = world.tenant()
    engine.plans = [
        Plan(words=["answer-canary"]),
        Plan(die_after_chunks=2, words=["answer-canary"]),
    ]
    for _ in range(2):
        body = BODY | {"messages": [{"role": "user", "content": "prompt-canary"}]}
        async with world.http(key) as http:
            await http.post("/chat/completions", json=body)
            await http.post("/chat/completions", content=b"{prompt-canary")
    told = "".join(str(record.__dict__) for record in caplog.records)
    assert told.count("'outcome': '200'") == 1
    assert told.count("'outcome': 'failed'") == 1
    assert told.count("'outcome': '400'") == 2
    assert "canary" not in told
    assert key not in told


async def test_a_gateway_starts_before_its_database(
    postgres_to_kill: tuple[KillableServer, str], redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    server, database_url = postgres_to_kill
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        key = world.tenant()
        await asyncio.to_thread(server.kill)
        async with running_gateway(world):
            assert (await post(world, key)).json()["error"]["code"] == "gateway_not_ready"
            async with world.http(key) as http:
                assert (await http.get(f"{world.url}/health")).status_code == 200
                assert (await http.get(f"{world.url}/ready")).status_code == 503
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(10):
                while (await post(world, key)).status_code != 200:
                    await asyncio.sleep(0.05)
            await world.settled(1)


async def test_a_full_disk_stops_admission(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    folder = tmp_path / "journal"
    full = {"journal_min_free_bytes": 2**60}
    with make_world(database_url, redis_url, folder, **full) as world:
        world.publish(engine.url)
        async with running_gateway(world):
            answer = await post(world, world.tenant())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "disk_full"
    assert not engine.requests
    await world.settled(0)


async def test_an_engine_that_stalls_is_given_up(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    engine.plans = [Plan(stall_after_chunks=0), Plan(stall_after_chunks=2)]
    quick = {
        "upstream_first_byte_timeout_seconds": 0.2,
        "upstream_idle_timeout_seconds": 0.2,
    }
    with make_world(database_url, redis_url, tmp_path / "journal", **quick) as world:
        world.publish(engine.url)
        async with running_gateway(world):
            key = world.tenant()
            early = await post(world, key)
            late = await post(world, key)
            rows = await world.settled(2)
    assert early.json()["error"]["code"] == "engine_timeout"
    assert "engine_failed" in late.text
    assert engine.aborted == 2
    assert [row.output_tokens for row in rows] == [0, 1]


async def test_a_stream_may_begin_late_but_not_pause_for_as_long(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    engine.plan = Plan(stall_after_chunks=2)
    quick = {"upstream_idle_timeout_seconds": 0.2}  # the first byte may take its 600 s
    with make_world(database_url, redis_url, tmp_path / "journal", **quick) as world:
        world.publish(engine.url)
        async with running_gateway(world), asyncio.timeout(10):
            assert "engine_failed" in (await post(world, world.tenant())).text
            await world.settled(1)


async def test_an_unknown_policy_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    settings = Settings(key_pepper=SecretStr("x"), router_policy="dice", journal_dir=tmp_path)
    with pytest.raises(StartupError, match="known are least_inflight"):
        create_app(settings, Starlette())


async def post(world: World, key: str) -> httpx.Response:
    async with world.http(key) as http:
        return await http.post("/chat/completions", json=BODY)
