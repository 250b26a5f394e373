"""Every revision up and down on a filled database: what both of two revisions know survives."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import exc, text
from support.filled import FILL
from support.shop import Shop, sessions, shop

from controlplane.accounts import corrections
from controlplane.billing.books import check_books
from controlplane.db import open_engine, session_factory
from controlplane.schema import downgrade, upgrade

__all__ = ["sessions", "shop"]

SCRIPTS = ScriptDirectory(str(Path(__file__).parents[3] / "migrations"))
REVISIONS = [it.revision for it in reversed(list(SCRIPTS.walk_revisions()))]


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """The URL of a database without any schema."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA books CASCADE")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return database_url


def rows(database_url: str) -> dict[str, list[str]]:
    """Return every row of every table as text, but for ended holds: newer revisions keep none."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
        return {
            table: [
                row[0]
                for row in connection.execute(
                    f"SELECT to_jsonb(t)::text FROM public.{table} t ORDER BY 1"  # type: ignore[arg-type]
                )
                if table != "holds" or '"state": "settled"' not in row[0]
            ]
            for (table,) in tables
        }


def run(database_url: str, statements: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(statements)  # type: ignore[call-overload]


def test_what_two_revisions_know_survives_the_way_up_and_back(empty_url: str) -> None:
    known: dict[str, dict[str, list[str]]] = {}
    for revision in REVISIONS:
        upgrade(empty_url, revision)
        run(empty_url, FILL.get(revision, ""))
        known[revision] = rows(empty_url)
    assert_exact(empty_url)
    for revision in reversed(REVISIONS[:-1]):
        downgrade(empty_url, revision)
        assert rows(empty_url) == known[revision], f"back to {revision}"
    upgrade(empty_url)
    assert_exact(empty_url)
    downgrade(empty_url, "base")
    assert rows(empty_url) == {"alembic_version": []}


def assert_exact(database_url: str) -> None:
    engine = open_engine(database_url)
    with session_factory(engine).begin() as session:
        assert check_books(session).violations == []
    engine.dispose()


def test_a_ledger_that_an_earlier_revision_cannot_say_is_not_taken_back(
    shop: Shop, database_url: str
) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        corrections.grant(session, tenant_id=customer.tenant_id, amount_p=5, reason="r", author="a")
    with pytest.raises(exc.IntegrityError, match="ck_ledger_transactions_kind"):
        downgrade(database_url, "0003")
    with shop.sessions.begin() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "0004"
    upgrade(database_url)
    assert shop.balance(customer).granted_p == 5
    assert shop.books().violations == []


def test_gpu_time_in_the_ledger_is_not_taken_back(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    run(empty_url, FILL["0001"])
    upgrade(empty_url, "0003")
    run(
        empty_url,
        """
        INSERT INTO ledger_transactions (id, kind, tenant_id, interval_id, from_ms, to_ms,
            rate_p_per_hour, reason, author)
        SELECT gen_random_uuid(), 'gpu_time', id, gen_random_uuid(), 0, 1, 1, 'r', 'a'
        FROM tenants WHERE name = 'acme'""",
    )
    with pytest.raises(exc.IntegrityError, match="ck_ledger_transactions"):
        downgrade(empty_url, "0002")
