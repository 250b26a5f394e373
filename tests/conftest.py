"""Real servers for every test: one PostgreSQL and one Valkey per run, fresh data per test."""

import logging
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from support.embedded import running
from support.product import Product, product

from controlplane.schema import upgrade
from controlplane.supervisor.postgres import Postgres
from controlplane.supervisor.valkey import Valkey

MakeDatabase = Callable[[], AbstractContextManager[str]]
TEMPLATE = "template_flashplane"
DATABASE_NUMBERS = count(1)
# Tests kill processes, never the machine: what the kernel holds is safe, and commits are quicker.
QUICK = {"fsync": "off", "max_connections": "200"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the storms: what failed once can be tried again, and for longer."""
    parser.addoption("--storm-seed", type=int, help="seed of a storm's faults; else a fresh one")
    parser.addoption(
        "--storm-seconds", type=float, default=300.0, help="how long the long money storm blows"
    )


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take back what a command run in this process did to its logging.

    Its handler writes to the command's stderr, which is closed with the test, while threads of
    fixtures log on.
    """
    before, level = list(logging.root.handlers), logging.root.level
    yield
    for handler in list(logging.root.handlers):
        if handler not in before:
            logging.root.removeHandler(handler)
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A private folder whose sockets' paths are short whatever pytest's own folder is."""
    folder = Path(tempfile.mkdtemp(prefix="fpt-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """A running PostgreSQL with a migrated template database."""
    server = Postgres(server_folder / "postgres", server_folder, QUICK)
    server.prepare()
    with running(server.command(), server.is_ready, signal.SIGINT, server_folder / "postgres.log"):
        server.ensure_database(TEMPLATE)
        upgrade(server.url(TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    server = Valkey(server_folder / "valkey-data", server_folder)
    server.prepare()
    with running(server.command(), server.is_ready, signal.SIGTERM, server_folder / "valkey.log"):
        yield server


@pytest.fixture(scope="session")
def make_database(postgres: Postgres) -> MakeDatabase:
    """Makes a fresh, migrated database for as long as it is needed, and gives its URL."""

    @contextmanager
    def make() -> Iterator[str]:
        name = f"test_{next(DATABASE_NUMBERS)}"
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
            yield postgres.url(name)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    return make


@pytest.fixture
def database_url(make_database: MakeDatabase) -> Iterator[str]:
    """The URL of a fresh, migrated database of this test alone."""
    with make_database() as url:
        yield url


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The URL of an empty Valkey."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def shared_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running product for all tests that do it no harm."""
    with product(tmp_path_factory.mktemp("up")) as shared:
        shared.up()
        yield shared


@pytest.fixture
def up(shared_product: Product) -> dict[str, Any]:
    """What `up.json` says of the shared product."""
    return shared_product.announced()


@pytest.fixture
def own_product(tmp_path: Path) -> Iterator[Product]:
    """A product of this test alone, not started yet."""
    with product(tmp_path) as own:
        yield own


@pytest.fixture
def own_up(own_product: Product) -> Callable[[], dict[str, Any]]:
    """Starts a product of this test alone, or starts it again, and tells what `up.json` says."""
    return own_product.up
