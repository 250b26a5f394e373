"""Prepaid or postpaid: credit is spent to its limit and never taken away while it is used."""

import uuid

import pytest
from support.shop import Customer, Shop, cost_p

from controlplane.accounts import terms
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.ledger import Balance
from controlplane.errors import Conflict, InsufficientBalance, NotFound, UnprocessableRequest
from controlplane.usage.records import TokenUsage

USD_P = 10**12
USAGE = TokenUsage(1, 2, 3, 0)


def set_terms(shop: Shop, customer: Customer, name: terms.Terms, limit_p: int) -> Balance:
    with shop.sessions.begin() as session:
        return terms.set_terms(
            session, tenant_id=customer.tenant_id, terms=name, credit_limit_p=limit_p
        )


def test_credit_is_spent_like_money(shop: Shop) -> None:
    customer = shop.customer()
    (refused,) = shop.place(shop.request(customer))
    assert isinstance(refused, InsufficientBalance)
    given = set_terms(shop, customer, "postpaid", USD_P)
    assert (given.terms, given.credit_limit_p, given.available_p) == ("postpaid", USD_P, USD_P)
    request = shop.request(customer)
    (placed,) = shop.place(request)
    assert isinstance(placed, HoldPlan)
    shop.stage(shop.trace(customer, request.request_id, USAGE))
    shop.settle()
    assert shop.balance(customer).balance_p == -cost_p(USAGE)
    assert shop.books().violations == []


def test_a_limit_below_what_is_used_is_a_conflict_that_tells_the_figures(shop: Shop) -> None:
    customer = shop.customer()
    set_terms(shop, customer, "postpaid", USD_P)
    shop.hold(customer)
    used_p = shop.balance(customer).held_p
    with pytest.raises(Conflict, match=r"uses 0\.0000168 USD of credit"):
        set_terms(shop, customer, "postpaid", used_p - 1)
    with pytest.raises(Conflict):
        set_terms(shop, customer, "prepaid", 0)
    assert set_terms(shop, customer, "postpaid", used_p).available_p == 0


def test_who_owes_nothing_pays_before_again(shop: Shop) -> None:
    customer = shop.customer(1)
    set_terms(shop, customer, "postpaid", USD_P)
    assert set_terms(shop, customer, "prepaid", 0).available_p == 1


@pytest.mark.parametrize(
    ("name", "limit_p"), [("prepaid", 1), ("postpaid", -1), ("postpaid", 2**63)]
)
def test_terms_that_make_no_sense_are_refused(shop: Shop, name: terms.Terms, limit_p: int) -> None:
    with pytest.raises(UnprocessableRequest):
        set_terms(shop, shop.customer(), name, limit_p)


def test_nobody_has_no_terms(shop: Shop) -> None:
    nobody = Customer(uuid.UUID(int=0), uuid.UUID(int=0), uuid.UUID(int=0), "")
    with pytest.raises(NotFound):
        set_terms(shop, nobody, "prepaid", 0)
