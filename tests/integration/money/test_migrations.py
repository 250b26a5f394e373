"""Migrating under load: a million rows, and no table that the product reads is shut for long."""

import threading
import time
from contextlib import ExitStack

import psycopg
import pytest
from support.filled import FILL

from controlplane.schema import upgrade

HOT = (
    *("tenants", "api_keys", "accounts", "holds", "ledger_transactions", "ledger_entries"),
    *("usage_staging", "usage_events"),
)
ROWS = 1_000_000
LONGEST_SECONDS = 2.0
# Copies of the one charge that the filled database has, its two entries and its usage.
MANY = f"""
    SET session_replication_role = replica;
    CREATE TEMP TABLE many AS
        SELECT uuidv7() AS id, uuidv7() AS request_id
        FROM generate_series(1, {ROWS});
    INSERT INTO ledger_transactions (id, kind, tenant_id, request_id, reason, author)
    SELECT many.id, kind, tenant_id, many.request_id, reason, author
    FROM many, ledger_transactions WHERE kind = 'charge';
    INSERT INTO ledger_entries (transaction_id, account_id, amount_p, token_class, tokens, rate_p)
    SELECT many.id, account_id, amount_p, token_class, tokens, rate_p
    FROM many, ledger_entries e JOIN ledger_transactions t ON t.id = e.transaction_id
    WHERE t.kind = 'charge' AND t.id = '00000000-0000-7000-8000-000000000022';
    INSERT INTO usage_events (request_id, tenant_id, api_key_id, model, path, thinking, streamed,
        hit_tokens, miss_tokens, output_tokens, reasoning_tokens, finish_reason, started_at,
        price_version_id, charge_p)
    SELECT many.request_id, tenant_id, api_key_id, model, path, thinking, streamed, hit_tokens,
        miss_tokens, output_tokens, reasoning_tokens, finish_reason, started_at, price_version_id,
        charge_p FROM many, usage_events;
    INSERT INTO holds (request_id, tenant_id, api_key_id, account_id, epoch_id, price_version_id,
        amount_p, prompt_tokens, completion_tokens, state, created_at)
    SELECT many.request_id, tenant_id, api_key_id, account_id, epoch_id, price_version_id, amount_p,
        prompt_tokens, completion_tokens, state, created_at
    FROM many, holds WHERE state = 'settled';
    UPDATE accounts SET balance_p = balance_p + {30 * ROWS} WHERE kind = 'revenue';
    UPDATE accounts SET balance_p = balance_p - {30 * ROWS} + 10^12 WHERE balance_p = 970;
    RESET session_replication_role
"""


@pytest.mark.storm
@pytest.mark.timeout(1800)
def test_no_table_is_shut_for_long(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA books CASCADE")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        upgrade(database_url, "0001")
        connection.execute(FILL["0001"])
        upgrade(database_url, "0003")
        connection.execute(FILL["0003"])
        connection.execute(MANY)  # type: ignore[call-overload]
        connection.execute("VACUUM ANALYZE")
    longest: dict[str, float] = {}
    over = threading.Event()
    with ExitStack() as stack:
        readers = [
            threading.Thread(target=keep_reading, args=(database_url, table, over, longest))
            for table in HOT
        ]
        for reader in readers:
            reader.start()
            stack.callback(reader.join)
        stack.callback(over.set)
        upgrade(database_url)
    assert set(longest) == set(HOT)
    assert {table: it for table, it in longest.items() if it >= LONGEST_SECONDS} == {}


def keep_reading(
    database_url: str, table: str, over: threading.Event, longest: dict[str, float]
) -> None:
    """Read a table again and again; note how long the longest wait was."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        longest[table] = 0.0
        while not over.wait(0.01):
            began = time.monotonic()
            connection.execute(f"SELECT 1 FROM {table} LIMIT 1")  # type: ignore[call-overload]
            longest[table] = max(longest[table], time.monotonic() - began)
