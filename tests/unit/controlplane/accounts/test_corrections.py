"""Grants, refunds, waivers, credit notes and adjustments: told, bounded, exact."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from support.shop import Customer, Shop, cost_p

from controlplane.accounts import corrections
from controlplane.accounts.corrections import BackKind, Taken, granted_back_p
from controlplane.accounts.models import LedgerEntry, LedgerTransaction
from controlplane.errors import (
    Conflict,
    ControlPlaneError,
    InsufficientBalance,
    NotFound,
    UnprocessableRequest,
)
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)
COST_P = cost_p(USAGE)
USD_P = 10**12
TOLD = {"reason": "outage of 3 May", "author": "root"}


def charge(shop: Shop, customer: Customer) -> uuid.UUID:
    """Serve a request and settle it; return the charge's transaction."""
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()
    found = select(LedgerTransaction.id).where(LedgerTransaction.request_id == request_id)
    with shop.sessions.begin() as session:
        return session.scalars(found).one()


def grant(shop: Shop, customer: Customer, amount_p: int) -> uuid.UUID:
    with shop.sessions.begin() as session:
        return corrections.grant(
            session, tenant_id=customer.tenant_id, amount_p=amount_p, **TOLD
        ).id


def give_back(
    shop: Shop,
    customer: Customer,
    amount_p: int | None = None,
    corrects_id: uuid.UUID | None = None,
    kind: BackKind = "refund",
) -> uuid.UUID:
    with shop.sessions.begin() as session:
        return corrections.give_back(
            session,
            kind=kind,
            tenant_id=customer.tenant_id,
            amount_p=amount_p,
            corrects_id=corrects_id,
            **TOLD,
        ).id


def adjust(shop: Shop, customer: Customer, amount_p: int) -> None:
    with shop.sessions.begin() as session:
        corrections.adjust(session, tenant_id=customer.tenant_id, amount_p=amount_p, **TOLD)


def sums(shop: Shop, customer: Customer) -> tuple[int, int]:
    balance = shop.balance(customer)
    return balance.balance_p, balance.granted_p


@given(
    amount_p=st.integers(1, 2**63 - 1),
    share=st.fractions(0, 1),
    cuts=st.lists(st.integers(1, 2**63 - 1), max_size=8),
)
def test_given_money_comes_back_whole_and_never_beyond_a_part(
    amount_p: int, share: float, cuts: list[int]
) -> None:
    granted_p, back_p, granted_back = int(share * amount_p), 0, 0
    for cut in [*sorted({cut % amount_p for cut in cuts}), amount_p]:
        part_p = cut - back_p
        if part_p == 0:
            continue
        granted_part_p = granted_back_p(Taken(amount_p, granted_p, back_p), part_p)
        assert 0 <= granted_part_p <= part_p
        assert abs(granted_part_p * amount_p - granted_p * part_p) < amount_p
        back_p, granted_back = back_p + part_p, granted_back + granted_part_p
    assert granted_back == granted_p


def test_a_grant_is_spent_before_what_was_paid(shop: Shop) -> None:
    customer = shop.customer(USD_P)
    grant(shop, customer, 5 * USD_P)
    assert sums(shop, customer) == (6 * USD_P, 5 * USD_P)
    charge(shop, customer)
    assert sums(shop, customer) == (6 * USD_P - COST_P, 5 * USD_P - COST_P)
    assert shop.books().violations == []


def test_a_refund_of_half_given_money_is_half_given_money(shop: Shop) -> None:
    customer = shop.customer(USD_P)
    grant(shop, customer, COST_P // 2)
    charged = charge(shop, customer)
    assert sums(shop, customer) == (USD_P + COST_P // 2 - COST_P, 0)
    give_back(shop, customer, 1, charged)
    give_back(shop, customer, COST_P // 2, charged)
    give_back(shop, customer, None, charged)
    assert sums(shop, customer) == (USD_P + COST_P // 2, COST_P // 2)
    assert shop.books().violations == []


@pytest.mark.parametrize("kind", ["refund", "credit_note", "waiver"])
def test_no_more_comes_back_than_was_taken(shop: Shop, kind: BackKind) -> None:
    customer = shop.customer(USD_P)
    charged = charge(shop, customer)
    give_back(shop, customer, COST_P - 1, charged, kind)
    with pytest.raises(Conflict, match=r"0\.000000000001 USD can be given back"):
        give_back(shop, customer, 2, charged, kind)
    give_back(shop, customer, 1, charged, kind)
    with pytest.raises(Conflict):
        give_back(shop, customer, None, charged, kind)
    assert sums(shop, customer) == (USD_P, 0)


def test_a_credit_note_may_be_a_gesture(shop: Shop) -> None:
    customer = shop.customer()
    give_back(shop, customer, 7, None, "credit_note")
    assert sums(shop, customer) == (7, 0)
    assert shop.books().violations == []


def test_what_gives_back_tells_what_of(shop: Shop) -> None:
    customer = shop.customer(USD_P)
    charged = charge(shop, customer)
    refund = give_back(shop, customer, 1, charged)
    with shop.sessions.begin() as session:
        row = session.get_one(LedgerTransaction, refund)
        assert (row.kind, row.corrects_id, row.reason) == ("refund", charged, TOLD["reason"])


@pytest.mark.parametrize(
    ("kind", "amount_p"), [("refund", 1), ("waiver", 1), ("waiver", None), ("credit_note", None)]
)
def test_nothing_is_given_back_of_nothing(shop: Shop, kind: BackKind, amount_p: int | None) -> None:
    with pytest.raises(UnprocessableRequest):
        give_back(shop, shop.customer(USD_P), amount_p, None, kind)


def test_a_refund_is_not_refunded(shop: Shop) -> None:
    customer = shop.customer(USD_P)
    refund = give_back(shop, customer, 1, charge(shop, customer))
    with pytest.raises(UnprocessableRequest, match="is a refund"):
        give_back(shop, customer, 1, refund)


def test_another_tenants_charge_is_not_there(shop: Shop) -> None:
    charged = charge(shop, shop.customer(USD_P))
    with pytest.raises(NotFound):
        give_back(shop, shop.customer(USD_P), 1, charged)
    with pytest.raises(NotFound):
        give_back(shop, shop.customer(USD_P), 1, uuid.UUID(int=0))


@pytest.mark.parametrize("amount_p", [0, -1, 2**63, 10**40])
def test_an_absurd_amount_is_refused(shop: Shop, amount_p: int) -> None:
    customer = shop.customer(USD_P)
    with pytest.raises(UnprocessableRequest):
        grant(shop, customer, amount_p)
    with pytest.raises(UnprocessableRequest):
        give_back(shop, customer, amount_p, None, "credit_note")
    if abs(amount_p) != 1:
        with pytest.raises(UnprocessableRequest):
            adjust(shop, customer, amount_p)


@pytest.mark.parametrize("missing", ["reason", "author"])
def test_nothing_moves_without_reason_and_author(shop: Shop, missing: str) -> None:
    customer = shop.customer()
    told = TOLD | {missing: " "}
    with shop.sessions() as session, pytest.raises(UnprocessableRequest, match=missing):
        corrections.grant(session, tenant_id=customer.tenant_id, amount_p=1, **told)


def test_nobody_who_is_not_there_is_given_anything(shop: Shop) -> None:
    nobody = Customer(uuid.UUID(int=0), uuid.UUID(int=0), uuid.UUID(int=0), "")
    for give in (grant, adjust, lambda *of: give_back(*of, None, "credit_note")):
        with pytest.raises(NotFound):
            give(shop, nobody, 1)


def test_an_adjustment_goes_both_ways(shop: Shop) -> None:
    customer = shop.customer(10)
    adjust(shop, customer, 5)
    adjust(shop, customer, -15)
    assert sums(shop, customer) == (0, 0)
    assert shop.books().violations == []


def test_an_adjustment_takes_no_more_than_nothing_holds(shop: Shop) -> None:
    customer = shop.customer(USD_P)
    shop.hold(customer)
    free_p = shop.balance(customer).available_p
    with pytest.raises(InsufficientBalance):
        adjust(shop, customer, -free_p - 1)
    adjust(shop, customer, -free_p)
    assert shop.balance(customer).available_p == 0


def test_two_admins_at_once_refund_a_charge_once(shop: Shop) -> None:
    customer = shop.customer(USD_P)
    charged = charge(shop, customer)

    def refund() -> int:
        try:
            give_back(shop, customer, None, charged)
        except ControlPlaneError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(future.result() for future in [pool.submit(refund) for _ in range(4)]) == 1
    assert sums(shop, customer) == (USD_P, 0)


def test_a_grants_entry_says_that_it_is_given(shop: Shop) -> None:
    granted = grant(shop, shop.customer(), 7)
    entries = select(LedgerEntry.amount_p, LedgerEntry.granted_p).where(
        LedgerEntry.transaction_id == granted
    )
    with shop.sessions.begin() as session:
        assert {tuple(row) for row in session.execute(entries)} == {(7, 7), (-7, 0)}
