"""Postpaid invoices: tax on top, payments in parts, too much, and what is left for the next."""

from datetime import UTC, datetime, timedelta

import pytest
from support.invoicing import final, run, set_terms, use
from support.shop import Customer, Shop

from controlplane.accounts import corrections
from controlplane.billing.invoices import months, paying, profiles
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.models import P_PER_CENT
from controlplane.errors import Conflict, NotFound, UnprocessableRequest

CENT = P_PER_CENT
USD = 100 * CENT
DAY = timedelta(days=1)


@pytest.fixture
def customer(shop: Shop) -> Customer:
    """Pays afterwards, with 20 % tax."""
    customer = shop.customer()
    set_terms(shop.sessions, customer.tenant_id, 1000 * USD)
    with shop.sessions.begin() as session:
        profiles.put(
            session,
            tenant_id=customer.tenant_id,
            legal_name="Buy GmbH",
            address="",
            tax_id="",
            tax_name="VAT",
            tax_basis_points=2000,
            reverse_charge_note=None,
            payment_days=10,
        )
    return customer


def finish(shop: Shop, month: int = 0) -> None:
    """Make the running month final, or one so many months later."""
    now = datetime.now(UTC)
    run(shop.sessions, now)
    end = months.month_of(now)
    for _ in range(month + 1):
        end = months.following(end)
    run(shop.sessions, months.begin(end) + DAY)


def only(shop: Shop, customer: Customer) -> Document:
    return final(shop.sessions, customer.tenant_id)[-1]


def pay(shop: Shop, document: Document, amount_p: int | None) -> None:
    with shop.sessions.begin() as session:
        paying.mark_paid(
            session,
            invoice_id=document.invoice.id,
            amount_p=amount_p,
            reason="transfer",
            author="test",
        )


def standing(shop: Shop, document: Document, after: timedelta = timedelta()) -> str:
    invoice = document.invoice
    assert invoice.issued_at is not None
    with shop.sessions.begin() as session:
        paid = paying.paid_cents(session, [invoice.id]).get(invoice.id, 0)
    return paying.standing(invoice, paid, invoice.issued_at + after)


def test_tax_comes_on_top_and_goes_to_the_state(shop: Shop, customer: Customer) -> None:
    use(shop, customer, 8 * USD, datetime.now(UTC))
    finish(shop)
    document = only(shop, customer)
    invoice = document.invoice
    assert (invoice.total_cents, invoice.tax_cents, invoice.due_cents) == (800, 160, 960)
    assert standing(shop, document) == "due"
    assert standing(shop, document, 11 * DAY) == "overdue"
    pay(shop, document, None)
    assert standing(shop, document, 11 * DAY) == "paid"
    assert shop.balance(customer).balance_p == 0
    assert shop.books().ok


def test_parts_of_a_payment_add_up_and_too_much_stays(shop: Shop, customer: Customer) -> None:
    use(shop, customer, 8 * USD, datetime.now(UTC))
    finish(shop)
    document = only(shop, customer)
    for cents in (1, 331, 333):
        pay(shop, document, cents * CENT)
    assert standing(shop, document) == "due"
    pay(shop, document, 300 * CENT)
    assert standing(shop, document) == "paid"
    assert shop.balance(customer).balance_p == 5 * CENT
    with pytest.raises(Conflict, match="Nothing of FP-"):
        pay(shop, document, CENT)
    assert shop.books().ok


def test_what_was_paid_in_is_taken_off_the_next_invoice(shop: Shop, customer: Customer) -> None:
    shop.top_up(customer, 5 * USD)
    use(shop, customer, 8 * USD, datetime.now(UTC))
    finish(shop)
    invoice = only(shop, customer).invoice
    assert (invoice.total_cents, invoice.credit_cents, invoice.tax_cents) == (800, 500, 160)
    assert invoice.due_cents == 300 + 160
    pay(shop, only(shop, customer), None)
    assert shop.balance(customer).balance_p == 0


def test_a_credit_note_and_its_tax_are_taken_off_later(shop: Shop, customer: Customer) -> None:
    """All in one month here: what was sold, less what was taken back, at once or one by one."""
    with shop.sessions.begin() as session:
        corrections.give_back(
            session,
            kind="credit_note",
            tenant_id=customer.tenant_id,
            amount_p=3 * USD,
            reason="sorry",
            author="test",
        )
    finish(shop)
    note = only(shop, customer).invoice
    assert (note.total_cents, note.tax_cents, note.due_cents) == (-300, -60, 0)
    assert note.tax_credit_left_cents == 60
    # The next month's entries are written today too, so they are late ones of this month.
    use(shop, customer, 8 * USD, datetime.now(UTC))
    finish(shop, month=1)
    invoice = only(shop, customer).invoice
    assert (invoice.total_cents, invoice.credit_cents, invoice.tax_credit_cents) == (800, 300, 60)
    assert invoice.due_cents == 500 + 160 - 60
    pay(shop, only(shop, customer), None)
    assert shop.balance(customer).balance_p == 0
    assert shop.books().ok


def test_a_reverse_charge_tells_its_note_and_no_tax(shop: Shop, customer: Customer) -> None:
    with shop.sessions.begin() as session:
        profile = profiles.of(session, tenant_id=customer.tenant_id)
        profile.tax_basis_points, profile.reverse_charge_note = 0, "Article 196"
    use(shop, customer, 8 * USD, datetime.now(UTC))
    finish(shop)
    invoice = only(shop, customer).invoice
    assert (invoice.tax_cents, invoice.due_cents, invoice.tax_note) == (0, 800, "Article 196")


def test_what_cannot_be_paid_is_refused(shop: Shop, customer: Customer) -> None:
    use(shop, customer, 8 * USD, datetime.now(UTC))
    finish(shop)
    document = only(shop, customer)
    for wrong_p in (0, -CENT, CENT + 1):
        with pytest.raises(UnprocessableRequest, match="whole cents"):
            pay(shop, document, wrong_p)
    document.invoice.id = customer.tenant_id
    with pytest.raises(NotFound):
        pay(shop, document, None)
