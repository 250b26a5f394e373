"""An engine, and a gateway in front of it on real PostgreSQL and Valkey."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.engine import Engine, running_engine
from support.gateway import World, make_world, running_gateway


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as engine:
        yield engine


@pytest.fixture
async def world(
    database_url: str, redis_url: str, tmp_path: Path, engine: Engine
) -> AsyncIterator[World]:
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        world.publish(engine.url)
        async with running_gateway(world):
            yield world
