"""Holding and settling read as much of a large ledger as of a small one."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from support.shop import Customer, Shop

from controlplane.billing import settlement
from controlplane.db import open_engine, session_factory
from controlplane.usage.records import TokenUsage

BATCH = 20
_READ = text("""
    SELECT t.relname, t.seq_tup_read + coalesce(sum(i.idx_tup_read), 0) AS rows_read
    FROM pg_stat_user_tables t LEFT JOIN pg_stat_user_indexes i USING (relid)
    WHERE t.relname IN ('accounts', 'ledger_transactions', 'ledger_entries', 'holds',
        'usage_staging')
        OR t.schemaname = 'partitions'
    GROUP BY t.relid, t.relname, t.seq_tup_read
""")


@pytest.fixture
def sessions(database_url: str) -> Iterator[sessionmaker[Session]]:
    """One connection, as a gateway or the settling job has it."""
    engine = open_engine(database_url, pool_size=1, by_index=True)
    yield session_factory(engine)
    engine.dispose()


def test_a_batch_reads_as_many_rows_of_a_grown_shop_as_of_a_new_one(shop: Shop) -> None:
    customers = [shop.customer(10**15) for _ in range(10)]
    with shop.sessions.begin() as session:
        session.execute(text("ANALYZE"))
    for _ in range(8):  # PostgreSQL keeps a plan after five runs of a statement
        sell(shop, customers)
    young = rows_read_by_one_batch(shop, customers[0])
    for _ in range(30):
        sell(shop, customers)
        customers.append(shop.customer(10**15))
    grown = rows_read_by_one_batch(shop, customers[0])
    assert any(young.values())
    more = {table: (rows, grown[table]) for table, rows in young.items()}
    del more["usage_staging"]  # what has left the queue is met there until a vacuum comes
    assert {table: it for table, it in more.items() if it[1] > it[0] + BATCH} == {}


def test_a_batch_reads_nothing_of_the_queue_behind_it(
    shop: Shop,
) -> None:
    customer = shop.customer(10**15)
    with shop.sessions.begin() as session:
        session.execute(text("ANALYZE"))
    requests = [shop.request(customer) for _ in range(40 * BATCH)]
    shop.place(*requests)
    used = TokenUsage(10, 20, 5, 0)
    shop.stage(*(shop.trace(customer, request.request_id, used) for request in requests))
    for _ in range(8):
        settle_one_batch(shop)
    before = rows_read(shop)
    settle_one_batch(shop)
    read = {table: rows - before[table] for table, rows in rows_read(shop).items()}
    # Its own, some of them more than once, and those that were settled just before.
    assert read["usage_staging"] < 16 * BATCH
    # For the foreign key and for the trigger, each of four entries.
    assert read["ledger_transactions"] <= 8 * BATCH


def settle_one_batch(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        assert settlement.settle(session, BATCH) == BATCH


def sell(shop: Shop, customers: list[Customer]) -> None:
    """Hold, stage and settle one batch, spread over the customers."""
    served = [customers[number % len(customers)] for number in range(BATCH)]
    requests = [shop.request(customer) for customer in served]
    shop.place(*requests)
    shop.stage(
        *(
            shop.trace(customer, request.request_id, TokenUsage(10, 20, 5, 0))
            for customer, request in zip(served, requests, strict=True)
        )
    )
    shop.settle()


def rows_read_by_one_batch(shop: Shop, customer: Customer) -> dict[str, int]:
    """Return how many rows or index entries of each table selling one batch reads."""
    before = rows_read(shop)
    sell(shop, [customer])
    return {table: rows - before[table] for table, rows in rows_read(shop).items()}


def rows_read(shop: Shop) -> dict[str, int]:
    """Return how many rows or index entries of each table were ever read."""
    with shop.sessions.begin() as session:
        session.execute(text("SELECT pg_stat_force_next_flush()"))
    with shop.sessions.begin() as session:
        return {table: int(rows) for table, rows in session.execute(_READ)}
