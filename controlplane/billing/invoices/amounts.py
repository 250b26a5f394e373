"""The sums of an invoice: rounded once, to cents; the rest is carried. Pure.

Called by `drafting`. Exact sums are p$; what is told to a customer or to the state is whole cents.
"""

from dataclasses import dataclass

from controlplane.billing.invoices.models import P_PER_CENT

ALL_BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Sums:
    """What the lines of an invoice add up to, p$.

    Attributes:
        charges_p: sales less what was taken back; below zero in a credit note.
        granted_p: the part of it that given money paid.
        received_p: top-ups, payments and grants that came in.
        given_p: the grants among them.
    """

    charges_p: int
    granted_p: int
    received_p: int
    given_p: int


@dataclass(frozen=True, slots=True)
class Before:
    """What the invoices before leave to the next one.

    Attributes:
        carried_p: below a cent, of either sign.
        closing_p: the balance by those invoices.
        paid_in_p: money that the tenant paid and that paid no invoice yet.
        tax_credit_cents: tax of credit notes, to be taken off the next taxes.
    """

    carried_p: int = 0
    closing_p: int = 0
    paid_in_p: int = 0
    tax_credit_cents: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """charges - granted + carried in = total + carried out; due as `Invoice` tells."""

    total_cents: int
    carried_out_p: int
    tax_cents: int
    tax_credit_cents: int
    tax_credit_left_cents: int
    credit_cents: int
    due_cents: int


def totals(sums: Sums, before: Before, *, prepaid: bool, tax_basis_points: int) -> Totals:
    """Return what is to pay.

    Prepaid: the balance paid it all, tax included. Postpaid: what the tenant had paid in is taken
    off first, tax comes on top. A credit note's tax, below zero, is taken off later taxes.
    """
    total_cents, carried_out_p = rounded(sums.charges_p - sums.granted_p + before.carried_p)
    if prepaid:
        tax_cents = _tax(total_cents, tax_basis_points, ALL_BASIS_POINTS + tax_basis_points)
        left = before.tax_credit_cents
        return Totals(total_cents, carried_out_p, tax_cents, 0, left, total_cents, 0)
    tax_cents = _tax(total_cents, tax_basis_points, ALL_BASIS_POINTS)
    paid_in_cents = max(0, before.paid_in_p + sums.received_p - sums.given_p) // P_PER_CENT
    credit_cents = min(total_cents, paid_in_cents)
    tax_credit_cents = min(before.tax_credit_cents, max(0, tax_cents))
    return Totals(
        total_cents=total_cents,
        carried_out_p=carried_out_p,
        tax_cents=tax_cents,
        tax_credit_cents=tax_credit_cents,
        tax_credit_left_cents=before.tax_credit_cents - tax_credit_cents + max(0, -tax_cents),
        credit_cents=credit_cents,
        due_cents=total_cents - credit_cents + max(0, tax_cents) - tax_credit_cents,
    )


def rounded(amount_p: int) -> tuple[int, int]:
    """Return whole cents towards zero, and the p$ left over, of the same sign."""
    cents, left_p = divmod(abs(amount_p), P_PER_CENT)
    return (cents, left_p) if amount_p >= 0 else (-cents, -left_p)


def tax_part(paid_cents: int, *, due_cents: int, due_tax_cents: int) -> int:
    """Return the tax in the first `paid_cents` of what is due.

    A payment's part is the difference of two of these, so that any payments sum to all of it.
    """
    assert 0 <= paid_cents <= due_cents
    return due_tax_cents * paid_cents // due_cents


def _tax(total_cents: int, numerator: int, denominator: int) -> int:
    """Return total x numerator / denominator, a half cent rounded away from zero."""
    cents = (2 * abs(total_cents) * numerator + denominator) // (2 * denominator)
    return cents if total_cents >= 0 else -cents
