"""A database that is silent, not gone: frozen, locked, behind a broken network."""

import asyncio
import threading
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from support.engine import Engine, Plan
from support.gateway import MODEL, World, make_world, running_gateway
from support.polling import until
from support.servers import KillableServer

from controlplane.errors import Unavailable
from controlplane.gateway.database import Database
from controlplane.tenants.models import Tenant

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
AT_ONCE = 20


async def test_a_frozen_database_stops_admission_and_loses_no_bill(
    postgres_to_kill: tuple[KillableServer, str], redis_url: str, tmp_path: Path, engine: Engine
) -> None:
    server, database_url = postgres_to_kill
    hasty = {"database_timeout_seconds": 1.0}
    with make_world(database_url, redis_url, tmp_path / "journal", **hasty) as world:
        world.publish(engine.url)
        async with running_gateway(world):
            key = world.tenant()
            engine.plan = Plan(words=["x"] * 300, pace_seconds=0.01)
            async with world.http(key) as http:
                streaming = asyncio.create_task(http.post("/chat/completions", json=BODY))
                await engine.until(lambda: len(engine.requests) == 1)
                await asyncio.to_thread(server.freeze)
                try:
                    asked = (http.post("/chat/completions", json=BODY) for _ in range(AT_ONCE))
                    refused = await asyncio.gather(*asked)
                    answer = await streaming
                finally:
                    await asyncio.to_thread(server.thaw)
            assert answer.status_code == 200
            assert {it.json()["error"]["code"] for it in refused} == {"database_unavailable"}
            assert {it.status_code for it in refused} == {503}
            assert all(int(it.headers["retry-after"]) >= 1 for it in refused)
            engine.plan = Plan()
            assert (await ask(world, key)) == 200
            rows = await world.settled_all()
        assert [row.output_tokens for row in rows] == [300, 3]
        with psycopg.connect(database_url) as connection:
            held = connection.execute("SELECT sum(held_p) FROM accounts").fetchone()
        assert held == (0,)


async def ask(world: World, key: str) -> int:
    async with world.http(key) as http:
        return (await http.post("/chat/completions", json=BODY)).status_code


async def test_what_nobody_waits_for_any_more_does_not_commit(database_url: str) -> None:
    database = Database(database_url, pool_size=1, timeout_seconds=0.2)
    told, ended = threading.Event(), threading.Event()

    def late(session: Session) -> None:
        session.add(Tenant(id=uuid.uuid4(), name="late"))
        session.flush()
        told.wait(30)
        ended.set()

    with pytest.raises(Unavailable, match="does not answer"):
        await database.run_in_time(late)
    told.set()
    await asyncio.to_thread(until, ended.is_set, seconds=30, what="the transaction's end")
    count = await database.run(
        lambda session: session.scalar(text("SELECT count(*) FROM tenants WHERE name = 'late'"))
    )
    database.close()
    assert count == 0
