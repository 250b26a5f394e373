"""Interrupted spot time is given back once, exactly, and only where the policy says so."""

import uuid

import pytest
from support.gpu_meter import RATE_P, USD, Meter, at, cost_p
from support.shop import Shop

from controlplane.accounts import corrections, ledger
from controlplane.billing.gpu import credits

HOUR = 3600.0
HOUR_MS = 3_600_000


@pytest.fixture
def meter(shop: Shop) -> Meter:
    meter = Meter(shop, shop.customer(100 * USD))
    meter.publish_price(RATE_P, kind="spot")
    return meter


def judge(meter: Meter, within_ms: int = HOUR_MS) -> int:
    with meter.shop.sessions.begin() as session:
        return credits.credit_interrupted(session, at(meter.now + 120), within_ms=within_ms)


def spot_life(meter: Meter, seconds: float, *, interrupted: bool, spot: bool = True) -> uuid.UUID:
    uid = uuid.uuid4()
    for until in (61.0, 130.5):
        meter.see(meter.proof(uid, 0, until, spot=spot))
        meter.charge()
    meter.see(meter.proof(uid, 0, seconds, spot=spot, ended=True, interrupted=interrupted))
    meter.charge()
    return uid


def test_a_life_that_was_interrupted_in_its_first_hour_costs_nothing(meter: Meter) -> None:
    uid = spot_life(meter, 1800, interrupted=True)
    assert meter.balance_p() == 100 * USD - cost_p(1800)
    assert judge(meter) == 1
    assert meter.balance_p() == 100 * USD
    assert meter.interval(uid).credited_p == meter.interval(uid).billed_p == cost_p(1800)
    assert meter.shop.books().violations == []


def test_it_is_given_back_once(meter: Meter) -> None:
    spot_life(meter, 1800, interrupted=True)
    assert [judge(meter), judge(meter)] == [1, 0]
    assert meter.balance_p() == 100 * USD


@pytest.mark.parametrize(
    ("seconds", "interrupted", "spot", "within_ms"),
    [
        (HOUR + 1, True, True, HOUR_MS),
        (1800, False, True, HOUR_MS),
        (1800, True, False, HOUR_MS),
        (1800, True, True, 0),
    ],
    ids=["later", "stopped by its owner", "on demand", "no policy"],
)
def test_no_other_life_is_given_back(
    meter: Meter, seconds: float, interrupted: bool, spot: bool, within_ms: int
) -> None:
    spot_life(meter, seconds, interrupted=interrupted, spot=spot)
    judge(meter, within_ms)
    assert meter.balance_p() == 100 * USD - cost_p(seconds)
    assert meter.shop.books().violations == []


def test_what_a_person_gave_back_is_not_given_again(meter: Meter) -> None:
    spot_life(meter, 1800, interrupted=True)
    with meter.shop.sessions.begin() as session:
        tick = next(
            it
            for it in ledger.lines(session, tenant_id=meter.customer.tenant_id)
            if it.kind == "gpu_time"
        )
        corrections.give_back(
            session,
            kind="refund",
            tenant_id=meter.customer.tenant_id,
            amount_p=-tick.amount_p,
            reason="sorry",
            author="ann",
            corrects_id=tick.transaction_id,
        )
    judge(meter)
    assert meter.balance_p() == 100 * USD
    assert meter.shop.books().violations == []


def test_given_money_comes_back_as_given(shop: Shop) -> None:
    customer = shop.customer(100 * USD)
    with shop.sessions.begin() as session:
        corrections.grant(
            session, tenant_id=customer.tenant_id, amount_p=10**9, reason="hi", author="ann"
        )
    meter = Meter(shop, customer)
    meter.publish_price(RATE_P, kind="spot")
    spot_life(meter, 1800, interrupted=True)
    judge(meter)
    balance = shop.balance(customer)
    assert (balance.balance_p, balance.granted_p) == (100 * USD + 10**9, 10**9)


def test_it_waits_until_everything_is_charged(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 600, spot=True, ended=True, interrupted=True))
    assert judge(meter) == 0
    meter.charge()
    assert judge(meter) == 1
    assert meter.balance_p() == 100 * USD
