"""The floor: the least SQL that holds, settles and stages, on the same server in the same run.

No rules, no foreign keys, no ledger, one statement for each batch: what is left is PostgreSQL.
"""

import time
import uuid

import psycopg

TABLES = """
    CREATE TABLE bare_accounts (id int PRIMARY KEY, balance numeric, held numeric);
    CREATE TABLE bare_holds (id uuid PRIMARY KEY, account_id int, amount bigint);
    CREATE TABLE bare_usage (
        id uuid PRIMARY KEY, account_id int, model text, hit bigint, miss bigint, output bigint
    );
"""
_HOLD = """
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(%s::uuid[], %s::int[], %s::bigint[]) AS w(id, account_id, amount)
    ), held AS (
        UPDATE bare_accounts a SET held = held + s.amount
        FROM (SELECT account_id, sum(amount) AS amount FROM wanted GROUP BY account_id) s
        WHERE a.id = s.account_id
    ) INSERT INTO bare_holds SELECT * FROM wanted
"""
_SETTLE = """
    WITH ended AS (
        DELETE FROM bare_holds WHERE id = ANY(%s) RETURNING *
    ), paid AS (
        UPDATE bare_accounts a SET held = held - s.amount, balance = balance - s.amount
        FROM (SELECT account_id, sum(amount) AS amount FROM ended GROUP BY account_id) s
        WHERE a.id = s.account_id
    ) INSERT INTO bare_usage SELECT id, account_id, 'model', 1, 1, 1 FROM ended
"""


def prepare(url: str, accounts: int) -> None:
    """Make the bare tables."""
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO bare_accounts SELECT n, 10^15, 0 FROM generate_series(0, %s) AS n",
            [accounts],
        )


def pairs_per_second(url: str, *, accounts: int, count: int, batch: int) -> float:
    """Hold and settle `count` times in batches on one connection."""
    with psycopg.connect(url, autocommit=True) as connection:
        started = time.perf_counter()
        for start in range(0, count, batch):
            ids = [uuid.uuid4() for _ in range(batch)]
            owners = [(start + number) % accounts for number in range(batch)]
            connection.execute(_HOLD, [ids, owners, [1] * batch])
            connection.execute(_SETTLE, [ids])
        return count / (time.perf_counter() - started)


def copied_rows_per_second(url: str, *, count: int, batch: int) -> float:
    """COPY `count` rows in batches, one transaction each, into a table with a primary key."""
    with psycopg.connect(url, autocommit=True) as connection:
        started = time.perf_counter()
        for _ in range(0, count, batch):
            rows = [(uuid.uuid4(), 1, "model", 1, 1, 1) for _ in range(batch)]
            copying = connection.cursor().copy("COPY bare_usage FROM STDIN")
            with copying as copy:
                for row in rows:
                    copy.write_row(row)
        return count / (time.perf_counter() - started)
