"""The check of the books finds what is wrong and nothing else."""

from sqlalchemy import text
from support.shop import Shop, cost_p

from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)


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
    found = shop.books().violations
    assert len(found) == 2
    assert "expected 1000000000000" in found[0]


def test_a_forgotten_hold_is_found(shop: Shop) -> None:
    customer = shop.customer(10**12)
    shop.hold(customer)
    with shop.sessions.begin() as session:
        session.execute(text("UPDATE holds SET state = 'released'"))
    (violation,) = shop.books().violations
    assert violation.startswith("the held sum is the sum of open holds")
