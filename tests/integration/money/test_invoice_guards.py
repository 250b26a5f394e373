"""A final invoice against hand-written SQL; numbers against threads and transactions that fail."""

import threading
from datetime import UTC, datetime, timedelta

from sqlalchemy import exc, select, text
from support.invoicing import SELLER, final, run, use
from support.shop import Shop

from controlplane.billing.invoices import lifecycle
from controlplane.billing.invoices.models import P_PER_CENT, Invoice

JUNE, JULY = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 7))
DAY = timedelta(days=1)
FINAL = "(SELECT id FROM invoices WHERE state = 'final')"
UNFINISHED = "(SELECT id FROM invoices WHERE state <> 'final' ORDER BY month LIMIT 1)"
LINE = "invoice_id, position, tenant_id, section, kind, month, late, meter, amount_p"
ATTACKS = {
    "a new total": "UPDATE invoices SET total_cents = 0 WHERE state = 'final'",
    "another number": "UPDATE invoices SET number = 'FP-1' WHERE state = 'final'",
    "open again": "UPDATE invoices SET state = 'open' WHERE state = 'final'",
    "another hash": "UPDATE invoices SET hash = '' WHERE state = 'final'",
    "another tenant": f"UPDATE invoices SET tenant_id = gen_random_uuid() WHERE id = {FINAL}",
    "gone": "DELETE FROM invoices WHERE state = 'final'",
    "all gone": "TRUNCATE invoices CASCADE",
    "a line changed": "UPDATE invoice_lines SET amount_p = 0",
    "a line gone": "DELETE FROM invoice_lines",
    "all lines gone": "TRUNCATE invoice_lines",
    "a line more": f"""
        INSERT INTO invoice_lines ({LINE})
        SELECT id, 99, tenant_id, 'sale', 'charge', month, false, 'miss', 1
        FROM invoices WHERE state = 'final'""",
    "a line moved": f"""
        UPDATE invoice_lines SET invoice_id = {UNFINISHED}, position = 98""",
    "made final by hand": f"UPDATE invoices SET state = 'final' WHERE id = {UNFINISHED}",
    "born final": """
        INSERT INTO invoices (id, tenant_id, month, state)
        SELECT gen_random_uuid(), tenant_id, '2020-01-01', 'final' FROM invoices LIMIT 1""",
    "half told": f"UPDATE invoices SET number = 'FP-9', serial = 9 WHERE id = {UNFINISHED}",
    "a number skipped": "UPDATE invoice_counters SET last = last + 2",
    "a number without an invoice": "UPDATE invoice_counters SET last = last + 1",
    "the counter gone": "DELETE FROM invoice_counters",
    "a counter from nowhere": "INSERT INTO invoice_counters VALUES ('XX', 2026, 1)",
    "all counters gone": "TRUNCATE invoice_counters",
    "a payment made up": f"""
        INSERT INTO invoice_payments
        SELECT gen_random_uuid(), tenant_id, id, 1, 0, now() FROM invoices WHERE id = {FINAL}""",
    "an event forgotten": "DELETE FROM payment_events",
    "payments forgotten": "DELETE FROM invoice_payments",
}


def is_refused(shop: Shop, statement: str) -> bool:
    """Whether the database refuses a statement, at the commit at the latest."""
    try:
        with shop.sessions.begin() as session:
            session.execute(text(statement))
    except exc.DBAPIError:
        return True
    return False


def test_a_final_invoice_refuses_every_change(shop: Shop) -> None:
    customer = shop.customer(10**12)
    run(shop.sessions, JUNE)
    use(shop, customer, 10**10, JUNE + DAY)
    run(shop.sessions, JULY + DAY)
    before = str(final(shop.sessions, customer.tenant_id)[0].invoice.hash)
    went_through = [name for name, attack in ATTACKS.items() if not is_refused(shop, attack)]
    assert went_through == []
    assert str(final(shop.sessions, customer.tenant_id)[0].invoice.hash) == before
    assert shop.books().ok


def test_numbers_have_no_gap_whoever_finishes_and_whatever_fails(shop: Shop) -> None:
    count, workers = 24, 6
    customers = [shop.customer(10**12) for _ in range(count)]
    run(shop.sessions, JUNE)
    for customer in customers:
        use(shop, customer, P_PER_CENT, JUNE + DAY)
    with shop.sessions.begin() as session:
        lifecycle.end_months(session, JULY + DAY)
    problems: list[Exception] = []

    def finish(worker: int) -> None:
        """Finish what there is; every other transaction is lost."""
        turn = worker
        try:
            while True:
                with shop.sessions() as session:
                    found = lifecycle.finish_next(session, JULY + DAY, SELLER)
                    turn += 1
                    if turn % 2:
                        session.rollback()
                    else:
                        session.commit()
                        if not found:
                            return
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=finish, args=[worker]) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    run(shop.sessions, JULY + DAY)  # what the last to go had claimed and lost
    with shop.sessions.begin() as session:
        serials = session.scalars(select(Invoice.serial).where(Invoice.state == "final")).all()
    assert sorted(serial or 0 for serial in serials) == list(range(1, count + 1))
    assert shop.books().ok
