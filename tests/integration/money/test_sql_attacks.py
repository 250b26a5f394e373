"""Statements that would bend the books, written by hand: PostgreSQL itself refuses each of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from support.polling import until
from support.shop import Shop, cost_p

from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)
COST_P = cost_p(USAGE)

# For statements: accounts by name, and the transactions that are there.
NAMES = """
    CREATE VIEW mine AS SELECT a.* FROM accounts a JOIN tenants t ON t.id = a.tenant_id
        WHERE t.name = 'mine';
    CREATE VIEW theirs AS SELECT a.* FROM accounts a JOIN tenants t ON t.id = a.tenant_id
        WHERE t.name = 'theirs';
    CREATE VIEW revenue AS SELECT * FROM accounts WHERE kind = 'revenue';
    CREATE VIEW funding AS SELECT * FROM accounts WHERE kind = 'funding';
    CREATE VIEW charge AS SELECT t.* FROM ledger_transactions t
        JOIN mine ON mine.tenant_id = t.tenant_id WHERE t.kind = 'charge';
    CREATE VIEW their_charge AS SELECT t.* FROM ledger_transactions t
        JOIN theirs ON theirs.tenant_id = t.tenant_id WHERE t.kind = 'charge';
"""
NEW = """
    WITH t AS (
        INSERT INTO ledger_transactions
            (id, kind, tenant_id, request_id, corrects_id, reason, author)
        SELECT gen_random_uuid(), {kind}, tenant_id, {request}, {corrects}, 'r', 'a' FROM mine
        RETURNING id
    )
    SELECT set_config('my.t', id::text, false) FROM t;
    INSERT INTO ledger_entries (transaction_id, account_id, amount_p, granted_p)
    SELECT current_setting('my.t')::uuid, account_id, amount_p, granted_p FROM (VALUES {entries})
        AS moved(account_id, amount_p, granted_p)
"""


def posted(
    *entries: tuple[str, int] | tuple[str, int, int],
    kind: str = "top_up",
    request: str = "NULL::uuid",
    corrects: str = "NULL::uuid",
) -> str:
    """SQL that posts a transaction of mine: of each entry account, amount and given part."""
    values = ", ".join(
        f"((SELECT id FROM {name}), {amount}, {granted[0] if granted else 0})"
        for name, amount, *granted in entries
    )
    return NEW.format(kind=f"'{kind}'", request=request, corrects=corrects, entries=values)


CHARGE = "(SELECT id FROM charge)"
ATTACKS = {
    "change an amount": "UPDATE ledger_entries SET amount_p = 1",
    "change nothing": "UPDATE ledger_entries SET amount_p = amount_p WHERE false",
    "delete entries": "DELETE FROM ledger_entries",
    "empty the entries": "TRUNCATE ledger_entries",
    "rename a reason": "UPDATE ledger_transactions SET reason = 'x'",
    "delete transactions": "DELETE FROM ledger_transactions",
    "empty everything": "TRUNCATE tenants CASCADE",
    "change by conflict": """
        INSERT INTO ledger_transactions (id, kind, tenant_id, reason, author)
        SELECT id, kind, tenant_id, 'x', 'a' FROM charge
        ON CONFLICT (id) DO UPDATE SET reason = 'x'""",
    "change by merge": """
        MERGE INTO ledger_entries e USING charge c ON e.transaction_id = c.id
        WHEN MATCHED THEN UPDATE SET amount_p = 1""",
    "post one side": posted(("mine", 5)),
    "post unequal sides": posted(("mine", 5), ("funding", -4)),
    "post nothing moved": posted(("mine", 0), ("funding", 0)),
    "pay from another tenant": posted(("mine", 5), ("theirs", -5), kind="adjustment"),
    "give another tenant money": posted(("theirs", 5), ("funding", -5)),
    "lengthen a transaction": """
        INSERT INTO ledger_entries (transaction_id, account_id, amount_p, granted_p)
        SELECT (SELECT id FROM charge), account_id, amount_p, 0 FROM (VALUES
            ((SELECT id FROM mine), 5), ((SELECT id FROM revenue), -5)) m(account_id, amount_p)""",
    "give more than there is": posted(("mine", 5, 6), ("funding", -5)),
    "give below zero": posted(("mine", -5, -5), ("revenue", 5), kind="adjustment"),
    "spend beyond the balance": posted(("mine", -(10**13)), ("revenue", 10**13), kind="adjustment"),
    "charge a request again": posted(
        ("mine", -5),
        ("revenue", 5),
        kind="charge",
        request="(SELECT request_id FROM charge)",
    ),
    "charge no request": posted(("mine", -5), ("revenue", 5), kind="charge"),
    "refund nothing": posted(("mine", 5), ("revenue", -5), kind="refund"),
    "refund too much": posted(
        ("mine", COST_P + 1), ("revenue", -COST_P - 1), kind="refund", corrects=CHARGE
    ),
    "refund too much given": posted(
        ("mine", 5, 5), ("revenue", -5), kind="refund", corrects=CHARGE
    ),
    "refund another tenant's charge": posted(
        ("mine", 1),
        ("revenue", -1),
        kind="refund",
        corrects="(SELECT id FROM their_charge)",
    ),
    "top up what corrects": posted(("mine", 1), ("funding", -1), corrects=CHARGE),
    "move without a reason": """
        INSERT INTO ledger_transactions (id, kind, tenant_id, reason, author)
        SELECT gen_random_uuid(), 'top_up', tenant_id, '', 'a' FROM mine""",
    "invent a kind": posted(("mine", 5), ("funding", -5), kind="present"),
    "raise a balance": "UPDATE accounts SET balance_p = balance_p + 1",
    "raise a balance by merge": """
        MERGE INTO accounts a USING mine ON a.id = mine.id
        WHEN MATCHED THEN UPDATE SET balance_p = 1""",
    "give by hand": "UPDATE accounts SET granted_p = 1 WHERE kind = 'tenant'",
    "begin rich": """
        INSERT INTO accounts (id, kind, tenant_id, balance_p, granted_p, held_p, terms,
            credit_limit_p)
        SELECT gen_random_uuid(), 'tenant', id, 5, 0, 0, 'prepaid', 0 FROM tenants""",
    "swap owners": "UPDATE accounts SET tenant_id = NULL, kind = 'tax' WHERE kind = 'tenant'",
    "drop an account": "DELETE FROM accounts WHERE kind = 'tax'",
    "hold below zero": "UPDATE accounts SET held_p = -1 WHERE kind = 'tenant'",
    "hold more than there is": "UPDATE accounts SET held_p = 10^14 WHERE kind = 'tenant'",
    "prepay on credit": "UPDATE accounts SET credit_limit_p = 1 WHERE kind = 'tenant'",
    "change usage": "UPDATE usage_events SET charge_p = 0",
    "delete usage": "DELETE FROM usage_events",
    "change when a price begins": "UPDATE price_versions SET effective_from = now()",
    "change a price": "UPDATE price_rates SET hit_rate_p = 0",
}


@pytest.fixture
def connection(shop: Shop, database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a shop with two tenants who bought something."""
    for name in ("mine", "theirs"):
        customer = shop.customer(10**12)
        with shop.sessions.begin() as session:
            session.connection().exec_driver_sql(
                "UPDATE tenants SET name = %s WHERE id = %s", (name, customer.tenant_id)
            )
        shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
    shop.settle()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(NAMES)
        yield connection


def sums(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """All that attacks could have changed."""
    return connection.execute("""
        SELECT id::text, tenant_id, balance_p, granted_p, held_p FROM accounts
        UNION ALL SELECT 'entries', NULL, count(*), sum(amount_p), sum(granted_p)
        FROM ledger_entries
        UNION ALL SELECT 'transactions', NULL, count(*), 0, 0 FROM ledger_transactions ORDER BY 1
    """).fetchall()


def test_every_attack_is_refused_by_the_database(
    connection: psycopg.Connection, shop: Shop
) -> None:
    before = sums(connection)
    passed = []
    for name, statement in ATTACKS.items():
        try:
            with connection.transaction():
                connection.execute(statement)
            passed.append(name)
        except psycopg.IntegrityError:
            pass
    assert passed == []
    assert sums(connection) == before
    assert shop.books().violations == []


def test_the_same_statements_pass_when_they_are_true(
    connection: psycopg.Connection, shop: Shop
) -> None:
    for statement in (
        posted(("mine", 5), ("funding", -5)),
        posted(("mine", COST_P), ("revenue", -COST_P), kind="refund", corrects=CHARGE),
    ):
        with connection.transaction():
            connection.execute(statement)
    assert shop.books().violations == []


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("mine", 5)], "does not sum to zero"),
        ([("mine", 5), ("funding", -4)], "does not sum to zero"),
        ([("theirs", 5), ("funding", -5)], "another tenant's money"),
        ([("mine", -(10**13)), ("funding", 10**13)], "not_overspent"),
    ],
)
def test_copied_rows_are_no_way_around(
    connection: psycopg.Connection, rows: list[tuple[str, int]], told: str
) -> None:
    before = sums(connection)

    def copy_in() -> None:
        with connection.transaction():
            (transaction_id,) = connection.execute("""
                INSERT INTO ledger_transactions (id, kind, tenant_id, reason, author)
                SELECT gen_random_uuid(), 'adjustment', tenant_id, 'r', 'a' FROM mine RETURNING id
            """).fetchone() or ("",)
            target = "ledger_entries (transaction_id, account_id, amount_p, granted_p)"
            with connection.cursor().copy(f"COPY {target} FROM STDIN") as copy:
                for name, amount_p in rows:
                    copy.write_row((transaction_id, ids[name], amount_p, 0))

    ids = {
        name: (connection.execute(f"SELECT id FROM {name}").fetchone() or ("",))[0]
        for name in ("mine", "theirs", "funding")
    }
    with pytest.raises(psycopg.IntegrityError, match=told):
        copy_in()
    assert sums(connection) == before


def test_refunds_that_race_by_hand_give_back_no_more_than_was_taken(
    connection: psycopg.Connection, database_url: str, shop: Shop
) -> None:
    refund = posted(("mine", COST_P), ("revenue", -COST_P), kind="refund", corrects=CHARGE)
    with psycopg.connect(database_url) as late:
        with ThreadPoolExecutor(1) as pool, connection.transaction():
            connection.execute(refund)
            waiting = pool.submit(late.execute, refund)
            until(lambda: blocked(database_url), seconds=10, what="a wait for the account")
        with pytest.raises(psycopg.IntegrityError, match="less is left"):
            waiting.result()
    assert shop.books().violations == []


def blocked(database_url: str) -> bool:
    """Return whether somebody waits for a lock."""
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None
