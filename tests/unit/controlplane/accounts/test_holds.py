"""Holds on a real database: order, repetition, refusals, exact sums."""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from support.shop import MISS_P, OUTPUT_P, Shop

from controlplane.accounts import holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.epochs import EpochClosed
from controlplane.db import uuid7
from controlplane.errors import AuthenticationFailed, Conflict, InsufficientBalance
from controlplane.tenants import keys, tenants
from controlplane.usage.records import TokenUsage

ONE_HOLD_P = 100 * MISS_P + 10 * OUTPUT_P


def test_a_hold_sets_its_bound_aside(shop: Shop) -> None:
    customer = shop.customer(10**12)
    shop.hold(customer)
    balance = shop.balance(customer)
    assert (balance.balance_p, balance.held_p) == (10**12, ONE_HOLD_P)


def test_a_batch_is_first_come_first_served(shop: Shop) -> None:
    customer = shop.customer(2 * ONE_HOLD_P)
    terms = {"exact_prompt": True}
    outcomes = shop.place(*(shop.request(customer, **terms) for _ in range(3)))
    assert [type(outcome) for outcome in outcomes] == [HoldPlan, HoldPlan, InsufficientBalance]
    assert shop.balance(customer).available_p == 0


def test_a_refusal_tells_both_amounts(shop: Shop) -> None:
    customer = shop.customer(10**6)
    (refusal,) = shop.place(shop.request(customer, exact_prompt=True))
    assert isinstance(refusal, InsufficientBalance)
    assert "0.0000168 USD" in refusal.message
    assert "0.000001 USD" in refusal.message


def test_holding_again_gives_the_first_hold_back(shop: Shop) -> None:
    customer = shop.customer(ONE_HOLD_P)
    request_id = shop.hold(customer)
    again = shop.request(customer, request_id=request_id, prompt_tokens=50, exact_prompt=True)
    (outcome,) = shop.place(again)
    assert outcome == HoldPlan(50, 10, 50 * MISS_P + 10 * OUTPUT_P)
    assert shop.balance(customer).held_p == 50 * MISS_P + 10 * OUTPUT_P
    assert shop.books().open_holds == 1


def test_repeating_a_batch_holds_once(shop: Shop) -> None:
    customer = shop.customer(ONE_HOLD_P)
    request = shop.request(customer)
    assert shop.place(request) == shop.place(request)
    assert shop.balance(customer).held_p == ONE_HOLD_P


def test_a_refused_second_hold_leaves_the_first(shop: Shop) -> None:
    customer = shop.customer(ONE_HOLD_P)
    request_id = shop.hold(customer)
    again = shop.request(customer, request_id=request_id, prompt_tokens=101, exact_prompt=True)
    (outcome,) = shop.place(again)
    assert isinstance(outcome, InsufficientBalance)
    assert shop.balance(customer).held_p == ONE_HOLD_P


def test_an_ended_request_cannot_hold_again(shop: Shop) -> None:
    customer = shop.customer(10**12)
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, TokenUsage(miss_tokens=1)))
    shop.settle()
    (outcome,) = shop.place(shop.request(customer, request_id=request_id))
    assert isinstance(outcome, Conflict)


def test_anothers_request_id_cannot_be_taken_over(shop: Shop) -> None:
    owner, thief = shop.customer(10**12), shop.customer(10**12)
    request_id = shop.hold(owner)
    (outcome,) = shop.place(shop.request(thief, request_id=request_id))
    assert isinstance(outcome, Conflict)
    assert shop.balance(owner).held_p == ONE_HOLD_P


def test_one_tenants_refusal_does_not_touch_another(shop: Shop) -> None:
    rich, poor = shop.customer(10**12), shop.customer()
    outcomes = shop.place(shop.request(poor), shop.request(rich))
    assert [type(outcome) for outcome in outcomes] == [InsufficientBalance, HoldPlan]


def test_a_key_revoked_after_authentication_holds_nothing(shop: Shop) -> None:
    customer = shop.customer(10**12)
    with shop.sessions.begin() as session:
        keys.revoke(session, key_id=customer.api_key_id)
    (outcome,) = shop.place(shop.request(customer))
    assert isinstance(outcome, AuthenticationFailed)


def test_a_suspended_tenant_holds_nothing(shop: Shop) -> None:
    customer = shop.customer(10**12)
    with shop.sessions.begin() as session:
        tenants.set_status(session, tenant_id=customer.tenant_id, status="suspended")
    (outcome,) = shop.place(shop.request(customer))
    assert isinstance(outcome, AuthenticationFailed)


def test_a_closed_epoch_holds_nothing(shop: Shop) -> None:
    customer = shop.customer(10**12)
    shop.close_epoch()
    with pytest.raises(EpochClosed):
        shop.place(shop.request(customer))
    assert shop.balance(customer).held_p == 0


def test_a_batch_of_any_size_takes_the_same_statements(shop: Shop) -> None:
    customers = [shop.customer(10**12) for _ in range(20)]
    one = _statements(shop, [shop.request(customers[0])])
    assert _statements(shop, [shop.request(c) for c in customers for _ in range(5)]) == one


def _statements(shop: Shop, requests: list[holds.HoldRequest]) -> int:
    seen: list[str] = []

    def note(conn: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    engine = shop.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", note)
    try:
        shop.place(*requests)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(seen)


def test_a_released_hold_is_given_back_once(shop: Shop) -> None:
    customer = shop.customer(10**12)
    request_id = shop.hold(customer)
    for released in (1, 0):
        with shop.sessions.begin() as session:
            assert holds.release(session, [request_id, uuid7()]) == released
    assert shop.balance(customer).held_p == 0


def test_releasing_what_never_was_is_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert holds.release(session, [uuid.uuid4()]) == 0


def test_a_free_model_needs_no_money(shop: Shop) -> None:
    request = shop.request(shop.customer(), prompt_tokens=5, max_tokens=6)
    free = replace(request.price, hit_rate_p=0, miss_rate_p=0, output_rate_p=0)
    (outcome,) = shop.place(replace(request, price=free))
    assert outcome == HoldPlan(5, 6, 0)
