"""What runs holds its next minutes: against requests, through ticks, until its end."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event, text
from support.gpu_meter import RATE_P, USD, Meter, at, cost_p
from support.shop import MISS_P, Customer, Shop
from support.shop import cost_p as tokens_p

from controlplane.accounts.bounds import HoldPlan
from controlplane.billing import erasure
from controlplane.billing.commitments import promises
from controlplane.billing.gpu import intervals, volumes
from controlplane.deployments import holdings
from controlplane.deployments.models import Deployment
from controlplane.errors import Conflict, InsufficientBalance
from controlplane.usage.records import TokenUsage

HELD_P = -(-RATE_P * 180 // 3600)  # of one replica
MINUTE_P = cost_p(60)


@pytest.fixture
def meter(shop: Shop) -> Meter:
    return Meter(shop, shop.customer(100 * USD))


def held_p(meter: Meter) -> int:
    return meter.shop.balance(meter.customer).held_p


def is_stopped(meter: Meter) -> bool:
    with meter.shop.sessions.begin() as session:
        return session.get_one(Deployment, meter.deployment.id).out_of_funds


def take_all(shop: Shop, customer: Customer) -> uuid.UUID:
    """Place a request that holds all that is free, to a few hundred tokens."""
    tokens = shop.balance(customer).available_p // MISS_P - 100
    request = shop.request(customer, prompt_tokens=tokens, max_tokens=1, exact_prompt=True)
    (outcome,) = shop.place(request)
    assert isinstance(outcome, HoldPlan), outcome
    return request.request_id


def test_a_replica_holds_three_minutes_from_its_first_proof_on(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    assert held_p(meter) == 0
    meter.charge()
    assert (held_p(meter), meter.balance_p()) == (HELD_P, 100 * USD)


def test_it_holds_as_much_after_each_tick(meter: Meter) -> None:
    uid = uuid.uuid4()
    for seconds in (30, 61, 125, 185):
        meter.see(meter.proof(uid, 0, seconds))
        meter.charge()
        assert held_p(meter) == HELD_P
    assert meter.balance_p() == 100 * USD - cost_p(185)


def test_its_end_gives_the_hold_back(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 90))
    meter.charge()
    meter.see(meter.proof(uid, 0, 95, ended=True))
    meter.charge()
    assert (held_p(meter), meter.balance_p()) == (0, 100 * USD - cost_p(95))


def test_silence_gives_it_back_after_a_while_and_a_late_proof_takes_it_again(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 90))
    meter.charge(wait_seconds=170)
    assert held_p(meter) == HELD_P
    meter.charge(wait_seconds=20)
    assert held_p(meter) == 0
    meter.see(meter.proof(uid, 0, 400))
    meter.charge()
    assert (held_p(meter), meter.balance_p()) == (HELD_P, 100 * USD - cost_p(400))


def test_requests_cannot_spend_what_a_replica_holds(shop: Shop) -> None:
    customer = shop.customer(HELD_P)
    meter = Meter(shop, customer)
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    meter.charge()
    (refused,) = shop.place(shop.request(customer))
    assert isinstance(refused, InsufficientBalance)


def test_time_is_paid_out_of_its_hold_while_requests_hold_all_else(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(10 * MINUTE_P))
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 1))
    meter.charge()
    take_all(shop, meter.customer)
    stopped = []
    for seconds in (61, 119, 179):
        meter.see(meter.proof(uid, 0, seconds))
        meter.charge()
        stopped.append(is_stopped(meter))
    meter.see(meter.proof(uid, 0, 179, ended=True))
    meter.charge()
    assert (meter.interval(uid).billed_p, meter.interval(uid).waived_p) == (cost_p(179), 0)
    assert stopped == [False, False, True]


def test_requests_that_end_in_time_keep_it_running(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(10 * MINUTE_P))
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 1))
    meter.charge()
    request_id = take_all(shop, meter.customer)
    meter.see(meter.proof(uid, 0, 100))
    meter.charge()
    used = TokenUsage(0, 1000, 1, 0)
    shop.stage(shop.trace(meter.customer, request_id, used))
    shop.settle()
    meter.see(meter.proof(uid, 0, 170))
    meter.charge()
    assert (held_p(meter), is_stopped(meter)) == (HELD_P, False)
    assert meter.balance_p() == 10 * MINUTE_P - tokens_p(used) - cost_p(170)


def test_a_start_that_requests_leave_no_money_for_is_stopped(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(10 * MINUTE_P))
    take_all(shop, meter.customer)
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    meter.charge()
    assert is_stopped(meter)


def test_what_two_replicas_hold_is_not_promised_twice(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(HELD_P + 5 * MINUTE_P // 2))
    first, second = sorted((uuid.uuid4(), uuid.uuid4()))
    meter.see(meter.proof(first, 0, 1), meter.proof(second, 0, 1))
    meter.charge()
    held = [meter.interval(uid).held_p for uid in (first, second)]
    assert held == [HELD_P, 5 * MINUTE_P // 2]
    assert shop.books().violations == []


def test_what_is_proven_is_paid_before_more_is_held(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(2 * HELD_P))
    long, short = sorted((uuid.uuid4(), uuid.uuid4()))
    meter.see(meter.proof(long, 0, 1), meter.proof(short, 0, 1))
    meter.charge()
    meter.see(meter.proof(long, 0, 240), meter.proof(short, 0, 61))
    meter.charge()
    assert (meter.interval(long).waived_p, meter.interval(short).waived_p) == (0, 0)
    assert held_p(meter) == meter.balance_p() == 2 * HELD_P - cost_p(240) - cost_p(61)


def test_a_replica_in_a_reservation_holds_at_its_rate(meter: Meter) -> None:
    rate_p = RATE_P // 4
    with meter.shop.sessions.begin() as session:
        promises.reserve(
            session,
            tenant_id=meter.customer.tenant_id,
            configuration="h200-x4",
            replicas=1,
            rate_p_per_hour=rate_p,
            starts_at=at(0),
            ends_at=at(0) + timedelta(days=1),
            reason="r",
            author="a",
        )
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    meter.charge()
    assert held_p(meter) == -(-rate_p * 180 // 3600)


def test_time_that_costs_nothing_holds_nothing(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 61, configuration="unknown"))
    meter.charge()
    assert held_p(meter) == 0


def test_another_length_of_hold_is_taken_at_once(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    for ahead_ms in (600_000, 120_000):
        with meter.shop.sessions.begin() as session:
            assert intervals.charge(session, at(1), ahead_ms=ahead_ms) == 1
        assert held_p(meter) == -(-RATE_P * ahead_ms // 3_600_000)


def test_nothing_is_done_where_all_holds_are_full(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    meter.charge()
    with meter.shop.sessions.begin() as session:
        assert intervals.charge(session, at(30)) == 0


def test_a_forged_hold_is_found(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    meter.charge()
    with meter.shop.sessions.begin() as session:
        session.execute(text("UPDATE gpu_intervals SET held_p = held_p - 1"))
    (found,) = meter.shop.books().violations
    assert found.startswith("the held sum is that of open holds and of what is held for time ahead")


def test_the_parts_of_the_held_sum_are_told(meter: Meter) -> None:
    meter.shop.hold(meter.customer)
    requests_p = held_p(meter)
    meter.publish_volume_price(1000)
    meter.see(meter.proof(uuid.uuid4(), 0, 1))
    meter.see_volume(uuid.uuid4(), 0, 1, size_gib=10)
    meter.charge()
    with meter.shop.sessions.begin() as session:
        assert volumes.charge(session, at(1)) == 1
    with meter.shop.sessions.begin() as session:
        balance, held = holdings.balance(session, tenant_id=meter.customer.tenant_id)
    # A volume is charged by the hour, and holds that long and two minutes.
    assert held == holdings.Held(requests_p, HELD_P, 10_000 * 62 // 60 + 1)
    assert balance.held_p == held.requests_p + held.gpu_p + held.storage_p


def test_a_tenant_is_not_erased_while_money_is_held_for_it(meter: Meter) -> None:
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, 0, 61))
    meter.charge()
    forge = "UPDATE gpu_intervals SET ended_at = proven_until; UPDATE deployments SET state = "
    with meter.shop.sessions.begin() as session:
        session.execute(text(forge + "'deleted'"))
    tenant_id = meter.customer.tenant_id
    with (
        pytest.raises(Conflict, match="gpu_intervals that is not billed to its end"),
        meter.shop.sessions.begin() as session,
    ):
        erasure.erase(session, tenant_id=tenant_id, author="a", waive_balance=True)


@contextmanager
def counted(meter: Meter) -> Iterator[list[str]]:
    """Collect the statements that go to the database; one for many rows is one."""
    told: list[str] = []
    engine = meter.shop.sessions.kw["bind"]

    def tell(*sent: object) -> None:
        told.append(str(sent[2]))

    event.listen(engine, "before_cursor_execute", tell)
    try:
        yield told
    finally:
        event.remove(engine, "before_cursor_execute", tell)


def test_a_round_takes_as_many_statements_for_many_replicas_as_for_two(meter: Meter) -> None:
    counts = []
    for number in (2, 20):
        uids = [uuid.uuid4() for _ in range(number)]
        began = meter.now
        # Some begin, some are charged, all in one round.
        meter.see(*(meter.proof(uid, began, began + 61 * (n % 2)) for n, uid in enumerate(uids)))
        with counted(meter) as told, meter.shop.sessions.begin() as session:
            assert intervals.charge(session, at(began + 61)) == number
        counts.append(len(told))
        meter.see(*(meter.proof(uid, began, began + 62, ended=True) for uid in uids))
        meter.charge()
    assert counts[0] == counts[1], told
