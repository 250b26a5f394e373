"""From the ledger to a final invoice: what is on it, and when."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text
from support.invoicing import SELLER, final, line_sum_p, run, use
from support.shop import HIT_P, MISS_P, MODEL, OUTPUT_P, Customer, Shop

from controlplane.accounts import corrections
from controlplane.billing.invoices import documents, lifecycle, months
from controlplane.billing.invoices.models import P_PER_CENT, Invoice
from controlplane.usage.records import TokenUsage

USD = 10**12
CENT = P_PER_CENT
JUNE, JULY, AUGUST = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 7, 8))
DAY = timedelta(days=1)


def months_run(shop: Shop, *moments: datetime) -> None:
    for moment in moments:
        run(shop.sessions, moment)


def told(shop: Shop, customer: Customer) -> list[tuple[date, int | None, int | None]]:
    """Month, cents and carried p$ of every final invoice."""
    found = [document.invoice for document in final(shop.sessions, customer.tenant_id)]
    return [(invoice.month, invoice.total_cents, invoice.carried_out_p) for invoice in found]


def test_a_month_becomes_an_invoice_after_its_grace(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    usage = TokenUsage(hit_tokens=5, miss_tokens=50, output_tokens=9, reasoning_tokens=0)
    shop.stage(shop.trace(customer, shop.hold(customer), usage))
    shop.settle()
    now = datetime.now(UTC)
    end = months.end(months.month_of(now))
    assert run(shop.sessions, now) == 0
    assert run(shop.sessions, end + timedelta(hours=23)) == 0
    assert run(shop.sessions, end + timedelta(hours=24)) == 1
    assert run(shop.sessions, end + timedelta(hours=25)) == 0
    (document,) = final(shop.sessions, customer.tenant_id)
    invoice, lines = document.invoice, document.lines
    sold = [line for line in lines if line.section == "sale"]
    assert [(line.meter, line.quantity, line.rate_p) for line in sold] == [
        ("miss", 50, MISS_P),
        ("hit", 5, HIT_P),
        ("output", 9, OUTPUT_P),
    ]
    assert {(line.model, line.path, line.band, line.project, line.api_key) for line in sold} == {
        (MODEL, "serverless", "standard", "default", "key")
    }
    charged_p = 5 * HIT_P + 50 * MISS_P + 9 * OUTPUT_P
    assert invoice.charges_p == line_sum_p(document, "sale") == charged_p
    assert invoice.closing_p == 10 * USD - charged_p
    assert (invoice.total_cents, invoice.carried_out_p) == divmod(charged_p, CENT)
    assert invoice.due_cents == 0
    assert invoice.hash == documents.digest(document)
    assert shop.books().ok


def test_usage_within_the_grace_joins_its_month_and_later_usage_the_next(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    months_run(shop, JUNE)
    use(shop, customer, 7 * CENT, JUNE + DAY)
    use(shop, customer, 5 * CENT, JULY + DAY)  # seen before June is final, and left for July
    months_run(shop, JULY, JULY + DAY)
    use(shop, customer, 3 * CENT, JULY - DAY)  # too late for June
    months_run(shop, AUGUST + DAY)
    assert told(shop, customer) == [(JUNE.date(), 7, 0), (JULY.date(), 8, 0)]
    lines = final(shop.sessions, customer.tenant_id)[1].lines
    late = [(line.late, line.month, line.amount_p) for line in lines]
    assert sorted(late) == [(False, JULY.date(), 5 * CENT), (True, JUNE.date(), 3 * CENT)]
    assert shop.books().ok


def test_what_is_below_a_cent_is_carried_until_it_makes_one(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    months_run(shop, JUNE)
    for began in (JUNE, JULY, AUGUST):
        use(shop, customer, CENT * 2 // 5, began + DAY)
    months_run(shop, JULY + DAY, AUGUST + DAY, AUGUST + 32 * DAY)
    assert told(shop, customer) == [
        (JUNE.date(), 0, CENT * 2 // 5),
        (JULY.date(), 0, CENT * 4 // 5),
        (AUGUST.date(), 1, CENT // 5),
    ]
    lines = final(shop.sessions, customer.tenant_id)[2].lines
    assert [line.section for line in lines] == ["carried", "sale"]


def test_a_month_without_any_movement_has_no_invoice(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    months_run(shop, JUNE, JULY + DAY)
    use(shop, customer, CENT, JULY + DAY)
    months_run(shop, AUGUST + DAY, AUGUST + 2 * DAY)
    assert told(shop, customer) == [(JULY.date(), 1, 0)]
    with shop.sessions.begin() as session:
        found = documents.listing(session, tenant_id=customer.tenant_id)
        assert [invoice.month.month for invoice in found] == [8, 7]


def test_months_that_nobody_looked_at_are_made_up_for(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    months_run(shop, JUNE)
    use(shop, customer, CENT, JUNE + DAY)
    use(shop, customer, 2 * CENT, JULY + DAY)
    months_run(shop, AUGUST + 40 * DAY)
    assert told(shop, customer) == [(JUNE.date(), 1, 0), (JULY.date(), 2, 0)]


def test_granted_credit_pays_first_and_is_told(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        corrections.grant(
            session, tenant_id=customer.tenant_id, amount_p=3 * USD, reason="hi", author="test"
        )
    shop.top_up(customer, 10 * USD)
    now = datetime.now(UTC)
    use(shop, customer, 5 * USD, now)
    months_run(shop, now, months.end(months.month_of(now)) + DAY)
    (document,) = final(shop.sessions, customer.tenant_id)
    invoice = document.invoice
    assert (invoice.charges_p, invoice.granted_p, invoice.total_cents) == (5 * USD, 3 * USD, 200)
    assert (invoice.received_p, invoice.given_p) == (13 * USD, 3 * USD)
    assert line_sum_p(document, "granted") == -3 * USD
    assert line_sum_p(document, "sale", "funds") == -shop.balance(customer).balance_p
    assert shop.books().ok


def test_more_taken_back_than_sold_is_a_credit_note(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    with shop.sessions.begin() as session:
        corrections.give_back(
            session,
            kind="credit_note",
            tenant_id=customer.tenant_id,
            amount_p=3 * CENT + 1,
            reason="sorry",
            author="test",
        )
    now = datetime.now(UTC)
    months_run(shop, now, months.end(months.month_of(now)) + DAY)
    assert [row[1:] for row in told(shop, customer)] == [(-3, -1)]
    assert shop.books().ok


def test_a_preview_says_what_the_invoice_would(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    now = datetime.now(UTC)
    use(shop, customer, 5 * CENT + 1, now)
    with shop.sessions.begin() as session:
        shown = lifecycle.preview(session, tenant_id=customer.tenant_id, now=now, seller=SELLER)
    months_run(shop, now, months.end(months.month_of(now)) + DAY)
    (document,) = final(shop.sessions, customer.tenant_id)
    assert shown.invoice.total_cents == document.invoice.total_cents == 5
    assert [(line.meter, line.amount_p) for line in shown.lines] == [
        (line.meter, line.amount_p) for line in document.lines
    ]


def test_an_entry_that_slipped_in_behind_sets_the_invoice_aside(shop: Shop) -> None:
    """As nobody of ours writes it: an entry whose id is below one that was seen already."""
    customer = shop.customer(10 * USD)
    months_run(shop, JUNE)
    use(shop, customer, CENT, JUNE + DAY)
    months_run(shop, JULY + DAY)
    with shop.sessions.begin() as session:
        numbers = "pg_get_serial_sequence('ledger_entries', 'id')"
        name = session.scalar(text(f"SELECT {numbers}"))
        session.execute(text(f"ALTER SEQUENCE {name} MINVALUE -999 RESTART WITH -999"))
    use(shop, customer, CENT, JULY + DAY)
    months_run(shop, AUGUST + DAY)
    assert [month for month, _, _ in told(shop, customer)] == [JUNE.date()]
    with shop.sessions.begin() as session:
        refused = documents.listing(session, tenant_id=customer.tenant_id, state="collecting")
        assert f"differ by {-CENT} p$" in str(refused[0].refused)
    assert not shop.books().ok


def test_an_invoice_is_made_again_after_a_crash_and_is_the_same(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    months_run(shop, JUNE)
    use(shop, customer, CENT + 1, JUNE + DAY)
    with shop.sessions.begin() as session:
        lifecycle.end_months(session, JULY + DAY)
    hashes = []
    for _ in range(2):
        with shop.sessions() as session:  # never committed
            lifecycle.finish_next(session, JULY + DAY, SELLER)
            invoice = session.get_one(Invoice, documents.listing(session, tenant_id=None)[0].id)
            hashes.append((invoice.number, invoice.hash))
    months_run(shop, JULY + DAY)
    (document,) = final(shop.sessions, customer.tenant_id)
    assert {*hashes, (document.invoice.number, document.invoice.hash)} == {hashes[0]}
