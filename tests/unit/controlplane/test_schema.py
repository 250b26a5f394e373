"""Migrations: equal to the models, one at a time, never backwards."""

import threading

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from controlplane.db import open_engine
from controlplane.errors import StartupError
from controlplane.schema import metadata, upgrade


def test_the_migrations_make_exactly_the_models(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata()) == []
    engine.dispose()


def test_upgrading_again_changes_nothing(database_url: str) -> None:
    # Every row PostgreSQL keeps about our tables has the id of the transaction that wrote it.
    query = (
        "SELECT oid, relname, xmin::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        before = connection.execute(query).fetchall()
        upgrade(database_url)
        assert connection.execute(query).fetchall() == before
    assert len(before) > 10


def test_a_newer_schema_is_refused_in_a_sentence(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartupError, match="schema revision 9999"):
        upgrade(database_url)


def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    failures: list[Exception] = []

    def migrate() -> None:
        try:
            upgrade(database_url)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = open_engine(database_url)
    with engine.connect() as connection:
        kinds = connection.scalars(text("SELECT kind FROM accounts ORDER BY kind")).all()
    engine.dispose()
    assert kinds == ["adjustments", "funding", "promotion", "revenue", "tax"]
