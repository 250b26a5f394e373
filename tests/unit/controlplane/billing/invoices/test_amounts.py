"""Rounding, carrying, taxes and parts of payments: exact over any number of months."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.billing.invoices.amounts import Before, Sums, rounded, tax_part, totals
from controlplane.billing.invoices.models import P_PER_CENT

CENTS = st.integers(-(10**9), 10**9)
AMOUNTS_P = st.one_of(st.integers(-(10**22), 10**22), st.integers(-3 * P_PER_CENT, 3 * P_PER_CENT))
TAXES = st.sampled_from([0, 1, 500, 1900, 10_000])


@given(AMOUNTS_P)
def test_rounding_loses_nothing_and_leaves_less_than_a_cent(amount_p: int) -> None:
    cents, left_p = rounded(amount_p)
    assert cents * P_PER_CENT + left_p == amount_p
    assert abs(left_p) < P_PER_CENT
    assert left_p * amount_p >= 0


@given(st.lists(AMOUNTS_P, max_size=20), TAXES, st.booleans())
def test_the_months_sum_to_what_was_used(used_p: list[int], tax: int, prepaid: bool) -> None:
    before, billed_cents = Before(), 0
    for month_p in used_p:
        told = totals(Sums(month_p, 0, 0, 0), before, prepaid=prepaid, tax_basis_points=tax)
        billed_cents += told.total_cents
        before = Before(carried_p=told.carried_out_p, tax_credit_cents=told.tax_credit_left_cents)
        assert abs(told.carried_out_p) < P_PER_CENT
        assert told.due_cents >= 0
    assert billed_cents * P_PER_CENT + before.carried_p == sum(used_p)


@given(st.lists(st.tuples(CENTS, st.integers(0, 10**9)), max_size=12), TAXES)
def test_what_is_due_and_paid_leaves_the_net_on_the_account(
    months: list[tuple[int, int]], tax: int
) -> None:
    """A tenant that pays every invoice whole owes nothing, whatever it paid in besides."""
    balance_cents, taxes, collected = 0, 0, 0
    before = Before()
    for used_cents, paid_in_cents in months:
        sums = Sums(used_cents * P_PER_CENT, 0, paid_in_cents * P_PER_CENT, 0)
        told = totals(sums, before, prepaid=False, tax_basis_points=tax)
        tax_cents = told.due_cents - (told.total_cents - told.credit_cents)
        assert 0 <= tax_cents <= told.due_cents
        balance_cents += paid_in_cents - used_cents + told.due_cents - tax_cents
        taxes, collected = taxes + told.tax_cents, collected + tax_cents
        left_p = before.paid_in_p + sums.received_p - told.credit_cents * P_PER_CENT
        before = Before(paid_in_p=left_p, tax_credit_cents=told.tax_credit_left_cents)
        assert balance_cents * P_PER_CENT == left_p
        assert balance_cents >= 0
    assert collected == taxes + before.tax_credit_cents


def test_a_prepaid_price_includes_its_tax_and_a_postpaid_one_does_not() -> None:
    sums = Sums(charges_p=119 * P_PER_CENT, granted_p=0, received_p=0, given_p=0)
    prepaid = totals(sums, Before(), prepaid=True, tax_basis_points=1900)
    assert (prepaid.total_cents, prepaid.tax_cents, prepaid.due_cents) == (119, 19, 0)
    postpaid = totals(sums, Before(), prepaid=False, tax_basis_points=1900)
    assert (postpaid.total_cents, postpaid.tax_cents, postpaid.due_cents) == (119, 23, 142)


@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**9), max_size=8), st.data())
def test_any_parts_of_a_payment_hold_all_of_its_tax(
    due: int, parts: list[int], data: st.DataObject
) -> None:
    due_tax = data.draw(st.integers(0, due))
    paid, tax_cents = 0, 0
    for part in [*parts, due]:
        step = min(part, due - paid)
        before = tax_part(paid, due_cents=due, due_tax_cents=due_tax)
        tax_cents += tax_part(paid + step, due_cents=due, due_tax_cents=due_tax) - before
        paid += step
    assert (paid, tax_cents) == (due, due_tax)
