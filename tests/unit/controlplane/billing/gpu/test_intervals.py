"""GPU time from proofs of life to the ledger, on a real database."""

import uuid
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from support.gpu_meter import RATE_P, START, USD, Meter, at, cost_p
from support.shop import Shop

from controlplane.accounts import ledger
from controlplane.billing.gpu import intervals
from controlplane.db import uuid7
from controlplane.deployments import rows
from controlplane.deployments.models import Deployment, GpuInterval
from controlplane.usage.records import TokenUsage


@pytest.fixture
def meter(shop: Shop) -> Meter:
    return Meter(shop, shop.customer(100 * USD))


def test_a_life_is_billed_by_the_minute_and_its_rest_at_the_end(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 59))
    meter.charge()
    assert meter.balance_p() == 100 * USD
    meter.see(meter.proof(uid, 0, 61.5))
    meter.charge()
    assert meter.balance_p() == 100 * USD - cost_p(61.5)
    meter.see(meter.proof(uid, 0, 70.25, ended=True))
    meter.charge()
    assert meter.balance_p() == 100 * USD - cost_p(70.25)
    assert meter.interval(uid).ended_at == at(70.25)
    assert meter.shop.books().violations == []


def test_a_silent_life_is_billed_to_its_last_proof(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 30))
    meter.charge(wait_seconds=61)
    assert meter.balance_p() == 100 * USD - cost_p(30)


def test_time_between_two_unbroken_parts_is_free(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 100))
    meter.see(meter.proof(uid, 500, 600, ended=True))
    meter.charge()
    assert meter.balance_p() == 100 * USD - cost_p(200)


def test_a_store_that_was_down_costs_no_proof(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 10))
    meter.charge(wait_seconds=3000)
    meter.see(meter.proof(uid, 0, 3600))
    meter.charge()
    assert meter.balance_p() == 100 * USD - RATE_P


def test_nothing_is_billed_from_before_it_was_ordered(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, -START, 60))
    ordered_at = meter.deployment.created_at.timestamp()
    assert meter.interval(uid).proven_ms == int((START + 60) * 1000) - round(ordered_at * 1000)


def test_a_proof_from_the_future_proves_nothing_beyond_now(meter: Meter) -> None:
    uid = uuid.uuid4()
    with meter.shop.sessions.begin() as session:
        intervals.extend(session, [meter.proof(uid, 0, 9999)], at(100))
    assert meter.interval(uid).proven_ms == 100_000


def test_the_rate_is_pinned_when_the_life_begins(meter: Meter) -> None:
    old, new = uuid.uuid4(), uuid.uuid4()
    meter.see(meter.proof(old, 0, 10))
    meter.publish_price(2 * RATE_P, from_seconds=5)
    meter.see(meter.proof(old, 0, 3600, ended=True), meter.proof(new, 6, 3606, ended=True))
    meter.charge()
    assert meter.interval(old).billed_p == RATE_P
    assert meter.interval(new).billed_p == 2 * RATE_P


def test_spot_time_has_a_rate_of_its_own(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.publish_price(RATE_P // 3, kind="spot")
    meter.see(meter.proof(uid, 0, 3600, spot=True, ended=True))
    meter.charge()
    assert meter.balance_p() == 100 * USD - RATE_P // 3


def test_time_without_a_published_price_is_free_for_ever(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 3600, configuration="unknown", ended=True))
    meter.charge()
    assert meter.balance_p() == 100 * USD
    assert meter.interval(uid).billed_ms == 3_600_000


def test_a_replica_of_nobody_we_know_is_not_billed(meter: Meter) -> None:
    strangers = [
        meter.proof(uuid.uuid4(), 0, 10, tenant_id=str(uuid7())),
        meter.proof(uuid.uuid4(), 0, 10, tenant_id="somebody"),
    ]
    assert meter.see(*strangers) == 2
    with meter.shop.sessions.begin() as session:
        assert session.scalars(select(GpuInterval)).all() == []


def test_an_empty_account_pays_what_it_has_and_its_deployment_stops(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(1_234_567))
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 3600, ended=True))
    meter.charge()
    interval = meter.interval(uid)
    assert (interval.billed_p, interval.waived_p) == (1_234_567, RATE_P - 1_234_567)
    assert meter.balance_p() == 0
    with shop.sessions.begin() as session:
        stopped = session.get_one(Deployment, meter.deployment.id)
    assert (stopped.out_of_funds, stopped.generation) == (True, 2)
    assert shop.books().violations == []


def test_a_deployment_stops_before_the_account_is_empty(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(cost_p(90)))
    meter.see(meter.proof(uuid.uuid4(), 0, 61))
    meter.charge()
    with shop.sessions.begin() as session:
        assert session.get_one(Deployment, meter.deployment.id).out_of_funds
    assert meter.balance_p() == cost_p(90) - cost_p(61)


def test_money_held_for_requests_is_not_taken(shop: Shop) -> None:
    customer = shop.customer(10**9)
    shop.hold(customer)
    held_p = shop.balance(customer).held_p
    meter = Meter(shop, customer)
    meter.see(meter.proof(uuid.uuid4(), 0, 3600, ended=True))
    meter.charge()
    assert shop.balance(customer).balance_p == held_p > 0


def test_time_waits_for_money_that_is_held_but_not_for_long(shop: Shop) -> None:
    customer = shop.customer(10**9)
    request_id, _ = shop.hold(customer), shop.hold(customer)
    available_p = shop.balance(customer).available_p
    meter = Meter(shop, customer)
    meter.publish_price(available_p * 60 + 600, from_seconds=-1)  # a minute costs a little more
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 60))
    meter.charge()
    assert (meter.interval(uid).billed_ms, shop.balance(customer).balance_p) == (0, 10**9)
    shop.stage(shop.trace(customer, request_id, TokenUsage(0, 0, 0, 0)))
    shop.settle()
    meter.charge()
    assert (meter.interval(uid).billed_p, meter.interval(uid).waived_p) == (available_p + 10, 0)
    meter.see(meter.proof(uid, 0, 240))
    meter.charge()
    assert meter.interval(uid).billed_ms == 240_000
    assert shop.books().violations == []


def test_deployments_stop_before_the_money_for_all_replicas_is_used_up(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(cost_p(61) * 3 + cost_p(150)))
    meter.see(*(meter.proof(uuid.uuid4(), 0, 61) for _ in range(3)))
    meter.charge()
    with shop.sessions.begin() as session:
        assert session.get_one(Deployment, meter.deployment.id).out_of_funds


def test_a_deployment_that_is_being_changed_keeps_no_bill_waiting(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(cost_p(90)))
    meter.see(meter.proof(uuid.uuid4(), 0, 61))
    with shop.sessions.begin() as session:
        rows.get(session, deployment_id=meter.deployment.id, tenant_id=None, to_change=True)
        meter.charge()
    assert meter.balance_p() == cost_p(90) - cost_p(61)
    meter.charge()
    with shop.sessions.begin() as session:
        assert session.get_one(Deployment, meter.deployment.id).out_of_funds


def test_a_ledger_line_explains_the_time(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 61.5))
    meter.charge()
    with meter.shop.sessions.begin() as session:
        line = ledger.lines(session, tenant_id=meter.customer.tenant_id)[0]
    assert line.explanation == (
        "61.5 s of h200-x4 on-demand (bot-0) at 7.201003600007 USD per hour = 0.123017144833 USD"
    )


def test_forged_gpu_sums_are_found(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 120))
    meter.charge()
    forge = "UPDATE gpu_intervals SET billed_p = billed_p - 1, waived_p = waived_p + 1"
    with meter.shop.sessions.begin() as session:
        session.execute(text(forge))
    found = meter.shop.books().violations
    assert [it.split(":")[0] for it in found] == [
        "a GPU interval's charge is what the ledger moved (I9)"
    ]


class Crash(Exception):
    """The process died before its commit."""


def maybe_crash(meter: Meter, step: Callable[[Session], object], crashes: bool) -> None:
    try:
        with meter.shop.sessions.begin() as session:
            step(session)
            if crashes:
                raise Crash
    except Crash:
        pass


ticks = st.lists(st.tuples(st.floats(0.001, 500), st.booleans(), st.booleans()), max_size=8)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(schedule=ticks)
def test_any_schedule_of_crashes_has_the_same_total(
    meter: Meter, schedule: list[tuple[float, bool, bool]]
) -> None:
    uid, now = uuid.uuid4(), 0.0
    before_p = meter.balance_p()
    for pause, crash_seeing, crash_charging in schedule:
        now += pause
        proof = meter.proof(uid, 0, now)
        maybe_crash(meter, lambda s, p=proof: intervals.extend(s, [p], at(10**6)), crash_seeing)
        maybe_crash(meter, lambda s, n=now: intervals.charge(s, at(n)), crash_charging)
    last = meter.proof(uid, 0, now + 1, ended=True)
    meter.see(last)
    meter.see(last)
    meter.charge()
    total_ms = int(last.published_at * 1000) - int(START * 1000)
    assert before_p - meter.balance_p() == RATE_P * total_ms // 3_600_000
    assert meter.interval(uid).billed_ms == total_ms
    assert meter.interval(uid).waived_p == 0
    meter.shop.top_up(meter.customer, before_p - meter.balance_p() + 1)
    assert meter.shop.books().violations == []


def test_intervals_are_claimed_by_one_process_each(meter: Meter) -> None:
    for _ in range(3):
        meter.see(meter.proof(uuid.uuid4(), 0, 120))
    with meter.shop.sessions.begin() as first, meter.shop.sessions.begin() as second:
        assert intervals.charge(first, at(120)) == 3
        assert intervals.charge(second, at(120)) == 0
    assert meter.balance_p() == 100 * USD - 3 * cost_p(120)
