"""What an engine's answers, and its silence, mean."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import pytest
from support.http_engine import Engine, engine_running

from controlplane.operator.engines.profile import ENGINES
from controlplane.operator.replica import asking
from controlplane.operator.replica.asking import UNWELL_ANSWERS, Asking, Target


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def target(engine: Engine) -> Iterator[Target]:
    with engine_running(engine) as url:
        yield Target(
            uid="u",
            key=("t", "r"),
            url=url,
            model=engine.model,
            profile=ENGINES["flash"],
            started_at=5.0,
            every_seconds=0.01,
        )


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def test_one_generation_proves_it_once(
    engine: Engine, target: Target, client: aiohttp.ClientSession
) -> None:
    asked = Asking(client, target)
    for _ in range(3):
        state = await asked.ask()
    assert state is not None
    assert (state.healthy, state.proven, state.max_model_len) == (True, True, 4096)
    assert state.started_at == target.started_at
    assert engine.asked.count("/v1/completions") == 1


async def test_its_load_is_told(
    engine: Engine, target: Target, client: aiohttp.ClientSession
) -> None:
    engine.running = 7
    state = await Asking(client, target).ask()
    assert state is not None
    assert (state.running, state.waiting, state.kv_usage) == (7, 0, None)


async def test_listing_the_model_is_no_proof(
    engine: Engine, target: Target, client: aiohttp.ClientSession
) -> None:
    engine.completions = 503
    asked = Asking(client, target)
    state = await asked.ask()
    assert state is not None
    assert (state.healthy, state.proven) == (True, False)
    assert "503" in state.error
    engine.completions = 200
    state = await asked.ask()
    assert state is not None
    assert state.proven


async def test_one_bad_answer_is_a_hiccup_and_several_are_not(
    engine: Engine, target: Target, client: aiohttp.ClientSession
) -> None:
    asked = Asking(client, target)
    await asked.ask()
    engine.health = 503
    said = [await asked.ask() for _ in range(UNWELL_ANSWERS)]
    assert [it is not None and it.healthy for it in said] == [True] * (UNWELL_ANSWERS - 1) + [False]
    last = said[-1]
    assert last is not None
    assert last.running is None
    engine.health = 200
    state = await asked.ask()
    assert state is not None
    assert state.healthy
    assert state.proven


async def test_nobody_listening_is_an_answer(target: Target, client: aiohttp.ClientSession) -> None:
    asked = Asking(client, replace(target, url="http://127.0.0.1:1"))
    for _ in range(UNWELL_ANSWERS):
        state = await asked.ask()
    assert state is not None
    assert (state.healthy, state.error) == (False, "ClientConnectorError")


async def test_silence_changes_nothing(
    engine: Engine, target: Target, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asking(client, target)
    before = await asked.ask()
    engine.silent = True
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.05)
    for _ in range(UNWELL_ANSWERS + 1):
        assert await asked.ask() == before
