"""An engine, and a gateway in front of it on real PostgreSQL and Valkey."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.engine import Engine, running_engine
from support.gateway import World, make_world, running_gateway
from support.servers import KillableServer, killable

from controlplane.schema import upgrade
from controlplane.supervisor.postgres import Postgres


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


@pytest.fixture
def postgres_to_kill(server_folder: Path, tmp_path: Path) -> Iterator[tuple[KillableServer, str]]:
    """A migrated PostgreSQL of this test alone and its URL."""
    sockets = Path(tempfile.mkdtemp(dir=server_folder))
    postgres = Postgres(sockets / "data", sockets, {"fsync": "off"})
    with killable(postgres, tmp_path / "postgres.log") as server:
        postgres.ensure_database()
        upgrade(postgres.url())
        yield server, postgres.url()
