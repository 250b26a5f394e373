"""The check of the books finds what is wrong and nothing else."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from support.shop import Shop, cost_p

from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)
TESTS = Path(__file__).parents[3]
README = TESTS.parent / "controlplane/billing/README.md"


def test_a_fresh_database_has_exact_books(shop: Shop) -> None:
    report = shop.books()
    assert report.ok
    assert (report.entries_sum_p, report.held_p, report.open_holds) == (0, 0, 0)


def test_running_requests_are_counted(shop: Shop) -> None:
    customer = shop.customer(10**12)
    held = shop.hold(customer)
    shop.stage(shop.trace(customer, held, USAGE))
    report = shop.books()
    assert report.ok
    assert (report.open_holds, report.staged) == (1, 1)
    assert report.held_p == shop.balance(customer).held_p > cost_p(USAGE)


def test_a_forged_balance_is_found(shop: Shop) -> None:
    customer = shop.customer(10**12)
    with shop.sessions.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # no triggers
        session.execute(
            text("UPDATE accounts SET balance_p = balance_p + 1 WHERE tenant_id = :id"),
            {"id": customer.tenant_id},
        )
    (violation,) = shop.books().violations
    assert violation.startswith("a balance is the sum of its entries (I2)")
    assert "expected 1000000000000" in violation


def test_a_forgotten_hold_is_found(shop: Shop) -> None:
    customer = shop.customer(10**12)
    shop.hold(customer)
    with shop.sessions.begin() as session:
        session.execute(text("UPDATE holds SET state = 'released'"))
    (violation,) = shop.books().violations
    assert violation.startswith("the held sum is that of open holds")


FORGERIES = {
    "empty_transactions": """
        INSERT INTO ledger_transactions (id, kind, tenant_id, reason, author)
        SELECT gen_random_uuid(), 'top_up', id, 'r', 'a' FROM tenants""",
    "wrong_grants": "UPDATE accounts SET granted_p = 1 WHERE kind = 'tenant'",
    "unbalanced_transactions": "DELETE FROM ledger_entries WHERE token_class = 'miss'",
    "foreign_entries": """
        UPDATE accounts SET tenant_id = (SELECT id FROM tenants WHERE name = 'other')
        WHERE kind = 'tenant'""",
    "misplaced_entries": "UPDATE ledger_transactions SET kind = 'grant' WHERE kind = 'top_up'",
    "unexplained_charges": """
        UPDATE ledger_entries SET token_class = NULL, tokens = NULL, rate_p = NULL""",
    "wrong_days": """
        INSERT INTO usage_rollups (width_seconds, start, tenant_id, project_id, api_key_id, model,
            path, band, thinking, requests, hit_tokens, miss_tokens, output_tokens,
            reasoning_tokens, charge_p)
        SELECT 86400, date_bin('1 day', minute, 'epoch'::timestamptz), tenant_id, project_id,
            api_key_id, model, path, band, thinking, 1, 1, 1, 1, 1, 1
        FROM usage_deltas LIMIT 1""",
    "wrong_usage_charges": "UPDATE usage_events SET charge_p = charge_p + 1",
    "wrong_usage_tokens": "UPDATE usage_events SET hit_tokens = hit_tokens + 1",
    "charges_without_usage": """
        DELETE FROM usage_events
        WHERE request_id = (SELECT max(request_id::text)::uuid FROM ledger_transactions)""",
    "wrong_budget_holds": """
        INSERT INTO budgets (id, tenant_id, scope, period, limit_p, spent_p, held_p,
                             period_started_at, thresholds)
        SELECT gen_random_uuid(), id, 'tenant', 'day', 1, 0, 1, now(), '{}' FROM tenants
        WHERE name <> 'other'""",
    "overcorrected_transactions": """
        INSERT INTO ledger_transactions (id, kind, tenant_id, corrects_id, reason, author)
        SELECT gen_random_uuid(), 'refund', tenant_id, id, 'r', 'a' FROM ledger_transactions
        WHERE kind = 'charge';
        INSERT INTO ledger_entries (transaction_id, account_id, amount_p, granted_p)
        SELECT t.id, a.id, sign * 1000000000, 0 FROM ledger_transactions t
        JOIN (VALUES ('tenant', 1), ('revenue', -1)) AS moved(kind, sign) ON true
        JOIN accounts a ON a.kind = moved.kind WHERE t.kind = 'refund'""",
}


@pytest.mark.parametrize("rule", FORGERIES)
def test_a_forgery_is_listed_by_the_view_of_its_rule(shop: Shop, rule: str) -> None:
    customer = shop.customer(10**12)
    for _ in range(2):
        shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
    shop.settle()
    shop.hold(customer)
    assert shop.books().ok
    with shop.sessions.begin() as session:
        session.execute(text("INSERT INTO tenants VALUES (gen_random_uuid(), 'other', 'active')"))
        session.execute(text("SET LOCAL session_replication_role = replica"))  # no triggers
        for statement in FORGERIES[rule].split(";"):
            session.execute(text(statement))
    with shop.sessions.begin() as session:
        assert session.execute(text(f"SELECT * FROM books.{rule}")).all()
        told = session.scalar(text(f"SELECT obj_description('books.{rule}'::regclass)"))
    assert any(violation.startswith(f"{told}: ") for violation in shop.books().violations)


def test_every_rule_says_itself_in_words(shop: Shop) -> None:
    untold = """
        SELECT relname FROM pg_class WHERE relnamespace = 'books'::regnamespace
        AND relkind = 'v' AND coalesce(obj_description(oid), '') = ''"""
    with shop.sessions.begin() as session:
        assert session.scalars(text(untold)).all() == []


def test_a_rule_that_is_added_is_checked(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        connection = session.connection()
        connection.exec_driver_sql(
            "CREATE VIEW books.mine AS SELECT 'me' AS subject, 1::numeric AS found, 2 AS expected"
        )
        connection.exec_driver_sql("COMMENT ON VIEW books.mine IS '100%% of :mine isn''t it'")
    assert shop.books().violations == ["100% of :mine isn't it: me has 1, expected 2"]


def test_the_readme_names_every_rule_and_tests_that_exist(shop: Shop) -> None:
    named = re.findall(r"^\| I\d+ \|.*\|(.*)\|(.*)\|$", README.read_text(), re.MULTILINE)
    assert len(named) == 12
    views, tests = (
        set(re.findall(r"`(\w+)`", " ".join(column))) for column in zip(*named, strict=True)
    )
    there = "SELECT relname FROM pg_class WHERE relnamespace = 'books'::regnamespace"
    with shop.sessions.begin() as session:
        assert views == set(session.scalars(text(f"{there} AND relkind = 'v'")))
    everything = "".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    assert [test for test in tests if f"def {test}(" not in everything] == []
