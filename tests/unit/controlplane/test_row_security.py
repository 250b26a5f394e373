"""The second wall: a confined session knows one tenant, whatever it asks."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import exc, select, text
from sqlalchemy.orm import Session
from support.shop import PEPPER, Customer, Shop

from controlplane.audit.chain import record
from controlplane.db import open_engine
from controlplane.errors import StartupError
from controlplane.row_security import TENANT_ROLE, confine
from controlplane.schema import upgrade
from controlplane.tenants.models import AdminKey, Tenant
from controlplane.usage.records import TokenUsage
from controlplane.webhooks import endpoints
from controlplane.webhooks.outbox import notify

# Every table that says whose its rows are. Partitions are reached through their table alone.
OF_TENANTS = text("""
    SELECT relname, relrowsecurity,
        EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid) AS has_policy,
        has_table_privilege('flashplane_tenant', pg_class.oid, 'SELECT') AS readable,
        has_column_privilege('flashplane_tenant', pg_class.oid, 'tenant_id', 'UPDATE') AS writable,
        relispartition
    FROM pg_class
    WHERE relnamespace <> 'pg_catalog'::regnamespace AND relkind IN ('r', 'p')
      AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid
                  AND attname = 'tenant_id' AND NOT attisdropped)
""")


@pytest.fixture
def two(shop: Shop) -> tuple[Customer, Customer]:
    """Two tenants with something of everything."""
    pair = shop.customer(10**12), shop.customer(10**12)
    for customer in pair:
        shop.stage(shop.trace(customer, shop.hold(customer), TokenUsage(1, 2, 3, 0)))
        shop.settle()
        shop.hold(customer)
        with shop.sessions.begin() as session:
            endpoints.create(
                session, PEPPER, tenant_id=customer.tenant_id, url="https://example.com",
                kinds=[], allow_loopback=False,
            )  # fmt: skip
            notify(session, tenant_id=customer.tenant_id, kind="a", body={}, once="a")
            write(session, customer)
    return pair


def write(session: Session, customer: Customer) -> None:
    record(
        session, tenant_id=customer.tenant_id, actor="a", action="a", subject="a", details={}
    )  # fmt: skip


@contextmanager
def confined(shop: Shop, customer: Customer) -> Iterator[Session]:
    with shop.sessions.begin() as session:
        confine(session, tenant_id=customer.tenant_id)
        yield session


def test_every_table_of_tenants_is_behind_the_wall(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        tables = session.execute(OF_TENANTS).all()
    assert len(tables) > 15
    for table in tables:
        if table.relispartition:
            assert not table.readable, f"{table.relname} can be read past its table's policy"
        else:
            assert table.relrowsecurity, f"{table.relname} has no row-level security"
            assert table.has_policy, f"{table.relname} has no policy"


def test_a_confined_session_reads_its_own_rows_and_no_others(
    shop: Shop, two: tuple[Customer, Customer]
) -> None:
    mine, _ = two
    seen = set()
    with shop.sessions.begin() as session:
        tables = [it.relname for it in session.execute(OF_TENANTS) if it.readable]
    with confined(shop, mine) as session:
        for table in tables:
            query = text(f"SELECT DISTINCT tenant_id FROM {table}")
            owners = set(session.scalars(query)) - ({None} if table == "price_versions" else set())
            assert owners <= {mine.tenant_id}, table
            seen |= {table} if owners else set()
        assert session.scalars(select(Tenant.id)).all() == [mine.tenant_id]
        entries = text(
            "SELECT DISTINCT accounts.tenant_id FROM ledger_entries"
            " LEFT JOIN accounts ON accounts.id = ledger_entries.account_id"
        )
        assert session.scalars(entries).all() == [mine.tenant_id]
    assert {"accounts", "api_keys", "holds", "usage_events", "audit_events"} <= seen
    assert {"webhook_endpoints", "webhook_deliveries", "ledger_transactions"} <= seen


def test_a_confined_session_gives_nothing_to_others(
    shop: Shop, two: tuple[Customer, Customer]
) -> None:
    mine, other = two
    with shop.sessions.begin() as session:
        tables = [
            it.relname
            for it in session.execute(OF_TENANTS)
            if it.writable and not it.relispartition
        ]
    assert {"api_keys", "projects", "webhook_endpoints"} <= set(tables)
    for table in tables:
        with shop.sessions.begin() as session:
            owned = text(f"SELECT EXISTS (SELECT FROM {table} WHERE tenant_id = :mine)")
            if not session.scalar(owned, {"mine": mine.tenant_id}):
                continue
        give = text(f"UPDATE {table} SET tenant_id = :other WHERE tenant_id = :mine")
        with (
            pytest.raises(exc.ProgrammingError, match="row-level security policy"),
            confined(shop, mine) as session,
        ):
            session.execute(give, {"other": other.tenant_id, "mine": mine.tenant_id})
        take = text(f"UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = :other")
        with confined(shop, mine) as session:
            assert session.execute(take, {"other": other.tenant_id}).rowcount == 0


def test_a_confined_session_cannot_write_in_anothers_audit_log(
    shop: Shop, two: tuple[Customer, Customer]
) -> None:
    mine, other = two
    with pytest.raises(exc.ProgrammingError), confined(shop, mine) as session:
        write(session, other)
    with confined(shop, mine) as session:
        write(session, mine)


@pytest.mark.parametrize("table", ["admin_keys", "gateway_epochs", "payment_events"])
def test_what_is_the_platforms_is_closed(
    shop: Shop, two: tuple[Customer, Customer], table: str
) -> None:
    with (
        pytest.raises(exc.ProgrammingError, match="permission denied"),
        confined(shop, two[0]) as session,
    ):
        session.execute(text(f"SELECT * FROM {table}"))


def test_the_next_transaction_of_the_connection_is_free_again(
    database_url: str, shop: Shop, two: tuple[Customer, Customer]
) -> None:
    engine = open_engine(database_url, pool_size=1)
    with Session(engine) as session:
        confine(session, tenant_id=two[0].tenant_id)
        assert session.scalar(text("SELECT current_user")) == TENANT_ROLE
        session.commit()
        assert len(session.scalars(select(Tenant.id)).all()) == 2
        session.scalars(select(AdminKey)).all()
    engine.dispose()


def test_without_a_tenant_the_role_sees_nothing(shop: Shop, two: tuple[Customer, Customer]) -> None:
    with shop.sessions.begin() as session:
        session.execute(text(f"SET LOCAL ROLE {TENANT_ROLE}"))
        assert session.scalars(select(Tenant.id)).all() == []


def test_a_database_user_of_few_rights_is_told_what_is_missing(database_url: str) -> None:
    user = f"weak_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public, books, partitions CASCADE")
        connection.execute(f"CREATE ROLE {user} LOGIN")
        connection.execute(f"CREATE SCHEMA public AUTHORIZATION {user}")
        name = connection.info.dbname
        connection.execute(f"GRANT CREATE ON DATABASE {name} TO {user}")
        try:
            with pytest.raises(StartupError, match=f'GRANT flashplane_tenant TO "{user}"'):
                upgrade(database_url.replace("//flashplane@", f"//{user}@"))
            connection.execute(f"GRANT {TENANT_ROLE} TO {user}")
            upgrade(database_url.replace("//flashplane@", f"//{user}@"))
        finally:
            connection.execute(f"DROP OWNED BY {user} CASCADE")
            connection.execute(f"DROP ROLE {user}")
