"""Payments: the tenant's part and the state's part."""

import uuid

import pytest
from sqlalchemy import select
from support.shop import Customer, Shop

from controlplane.accounts import payments
from controlplane.accounts.models import Account
from controlplane.errors import NotFound, UnprocessableRequest

NOBODY = Customer(uuid.UUID(int=0), uuid.UUID(int=0), uuid.UUID(int=0), "")


def pay(shop: Shop, customer: Customer, amount_p: int, tax_p: int, reason: str = "7") -> None:
    with shop.sessions.begin() as session:
        payments.pay(
            session,
            tenant_id=customer.tenant_id,
            amount_p=amount_p,
            tax_p=tax_p,
            reason=reason,
            author="root",
        )


@pytest.mark.parametrize(("amount_p", "tax_p"), [(120, 20), (120, 0), (20, 20)])
def test_tax_goes_to_the_state_and_the_rest_to_the_tenant(
    shop: Shop, amount_p: int, tax_p: int
) -> None:
    customer = shop.customer()
    pay(shop, customer, amount_p, tax_p)
    assert shop.balance(customer).balance_p == amount_p - tax_p
    with shop.sessions.begin() as session:
        platform = select(Account.balance_p).where(Account.kind.in_(("funding", "tax")))
        ours = session.scalars(platform.order_by(Account.kind)).all()
    assert ours == [-amount_p, tax_p]
    assert shop.books().violations == []


@pytest.mark.parametrize(("amount_p", "tax_p"), [(0, 0), (-1, 0), (2**63, 0), (1, 2), (1, -1)])
def test_a_payment_that_is_none_is_refused(shop: Shop, amount_p: int, tax_p: int) -> None:
    with pytest.raises(UnprocessableRequest):
        pay(shop, shop.customer(), amount_p, tax_p)


def test_a_payment_has_a_reason_and_a_payer(shop: Shop) -> None:
    with pytest.raises(UnprocessableRequest):
        pay(shop, shop.customer(), 1, 0, reason="")
    with pytest.raises(NotFound):
        pay(shop, NOBODY, 1, 0)
