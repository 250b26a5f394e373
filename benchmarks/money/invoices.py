"""What an invoice for a month of one busy tenant takes: a million requests, three entries each."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import psycopg

from controlplane.accounts import ledger, opening
from controlplane.billing.invoices import lifecycle, months
from controlplane.billing.invoices.profiles import Seller
from controlplane.db import open_engine, session_factory
from controlplane.pricing import book
from controlplane.settings import Settings
from controlplane.tenants import keys

CHUNK = 100_000
KEYS = 20
# 100 miss, 1,000 hit and 50 output tokens of each request.
_TOKENS = "(VALUES ('miss', 100, 140000), ('hit', 1000, 2800), ('output', 50, 280000))"
_REQUESTS = """
    CREATE TEMP TABLE wanted AS
    SELECT uuidv7() AS request_id, uuidv7() AS id, n
    FROM generate_series(1, %(count)s) AS n
"""
_USAGE = """
    INSERT INTO usage_events (
        request_id, tenant_id, api_key_id, model, path, thinking, streamed, hit_tokens, miss_tokens,
        output_tokens, reasoning_tokens, finish_reason, started_at, price_version_id, band, charge_p
    )
    SELECT request_id, %(tenant)s, (%(keys)s::uuid[])[1 + n %% %(key_count)s], 'deepseek-v4-flash',
           'serverless', false, true, 1000, 100, 50, 0, 'stop', now(), %(version)s, 'standard',
           30800000
    FROM wanted
"""
_TRANSACTIONS = """
    INSERT INTO ledger_transactions (id, kind, tenant_id, request_id, reason, author)
    SELECT id, 'charge', %(tenant)s, request_id, 'deepseek-v4-flash on serverless', 'settlement'
    FROM wanted
"""
_ENTRIES = f"""
    INSERT INTO ledger_entries (
        transaction_id, account_id, amount_p, granted_p, token_class, tokens, rate_p
    )
    SELECT w.id, a.id, -c.tokens * c.rate_p, 0, c.class, c.tokens, c.rate_p
    FROM wanted w, {_TOKENS} AS c(class, tokens, rate_p), accounts a
    WHERE a.tenant_id = %(tenant)s
    UNION ALL
    SELECT w.id, a.id, 30800000, 0, NULL, NULL, NULL FROM wanted w, accounts a
    WHERE a.kind = 'revenue'
"""


def seconds(database_url: str, *, events: int) -> float:
    """Fill a database that has a price with `events` requests of one tenant; time its invoice."""
    tenant_id = _fill(database_url, events)
    engine = open_engine(database_url)
    sessions = session_factory(engine)
    now = datetime.now(UTC)
    later = months.end(months.month_of(now)) + timedelta(days=2)
    with sessions.begin() as session:
        lifecycle.begin_months(session, now)
    with sessions.begin() as session:
        lifecycle.end_months(session, later)
    started = time.perf_counter()
    with sessions.begin() as session:
        assert lifecycle.finish_next(session, later, Seller.of(Settings()))
    taken = time.perf_counter() - started
    with sessions.begin() as session:
        invoice = lifecycle.last_final(session, tenant_id=tenant_id)
    assert invoice is not None
    assert invoice.charges_p == events * 30_800_000
    engine.dispose()
    return taken


def _fill(database_url: str, events: int) -> uuid.UUID:
    engine = open_engine(database_url)
    with session_factory(engine).begin() as session:
        tenant_id = opening.create_tenant(session, name="busy").id
        ids = [
            keys.issue(session, b"pepper", tenant_id=tenant_id, name=f"key {number}")[0].id
            for number in range(KEYS)
        ]
        version_id = book.listing(session)[0].id
        ledger.top_up(
            session, tenant_id=tenant_id, amount_p=10**15, reason="benchmark", author="benchmark"
        )
    engine.dispose()
    values = {"tenant": tenant_id, "keys": ids, "key_count": KEYS, "version": version_id}
    with psycopg.connect(database_url) as connection:
        for start in range(0, events, CHUNK):
            connection.execute(_REQUESTS, {"count": min(CHUNK, events - start)})
            for statement in (_USAGE, _TRANSACTIONS, _ENTRIES):
                connection.execute(statement, values)
            connection.execute("DROP TABLE wanted")
            connection.commit()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return tenant_id
