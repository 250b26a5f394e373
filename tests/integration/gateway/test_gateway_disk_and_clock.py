"""A disk that lies and a clock that jumps: what was sent is billed, what is unsure is not sold."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.engine import Engine, Plan
from support.gateway import MODEL, World, make_world, running_gateway
from support.gateway_child import gateway_process

from controlplane.billing.settlement import WITNESS_SECONDS, release_dead

BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 200,
    "stream": True,
}
PLAN = Plan(words=["x"] * 10, prompt_tokens=30)
FAILED_SYNC = "enable name=posix/io/sync/fdatasync,failinfo=5"  # EIO
needs_fiu = pytest.mark.skipif(
    shutil.which("fiu-run") is None, reason="no fiu-run: apt-get install fiu-utils"
)
needs_faketime = pytest.mark.skipif(
    shutil.which("faketime") is None, reason="no faketime: apt-get install faketime"
)


@pytest.fixture
def idle_world(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> Iterator[World]:
    """A world whose gateway has not been started."""
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        engine.plan = PLAN
        yield world


async def answer(world: World, key: str) -> tuple[int, str]:
    """The status and whole text of a streamed answer."""
    async with world.http(key) as http:
        response = await http.post("/chat/completions", json=BODY)
    return response.status_code, response.text


@needs_fiu
async def test_an_end_that_the_disk_did_not_take_is_not_told(
    idle_world: World, engine: Engine
) -> None:
    world, key = idle_world, idle_world.tenant()
    async with gateway_process(world, "fiu-run", "-x", "-c", FAILED_SYNC):
        status, text = await answer(world, key)
        assert (status, "[DONE]" in text) == (200, False), text
        status, text = await answer(world, key)
        assert status == 503, text
        assert json.loads(text)["error"]["code"] == "journal_unavailable"
    assert len(engine.requests) == 1
    async with running_gateway(world):
        with world.sessions.begin() as session:  # what was held for the refused one
            release_dead(session, datetime.now(UTC) + timedelta(seconds=WITNESS_SECONDS))
        (row,) = await world.settled(1)
    assert (row.hit_tokens + row.miss_tokens, row.output_tokens) == (30, 10)


@needs_faketime
async def test_a_clock_that_jumps_neither_loses_nor_changes_a_bill(
    idle_world: World, tmp_path: Path
) -> None:
    world, key = idle_world, idle_world.tenant()
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    lies = {
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with gateway_process(world, "faketime", "-f", "+0", **lies):
        for jump in ("+0", "+30m", "+0", "+10m"):
            clock.write_text(f"{jump}\n")
            status, text = await answer(world, key)
            assert (status, "[DONE]" in text) == (200, True), text
        rows = await world.settled(4)
    assert {(row.hit_tokens + row.miss_tokens, row.output_tokens) for row in rows} == {(30, 10)}
    assert len({row.charge_p for row in rows}) == 1
