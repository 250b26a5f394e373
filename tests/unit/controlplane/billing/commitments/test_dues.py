"""Commitments fall due once and are collected exactly, on a real database."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from support.gpu_meter import RATE_P, USD, Meter, at, cost_p
from support.shop import Customer, Shop

from controlplane.billing import budget_terms
from controlplane.billing.commitments import dues, promises
from controlplane.deployments.commitments import Commitment, CommitmentDue
from controlplane.errors import NotFound, UnprocessableRequest

HOUR = 3600.0
COMMITTED_P = 5_000_000_000_021
MONTH = datetime(2030, 1, 1, tzinfo=UTC)
NEXT = datetime(2030, 2, 1, tzinfo=UTC)
LAST = datetime(2030, 3, 1, tzinfo=UTC)


def spend(shop: Shop, customer: Customer, p_per_month: int, **term: datetime) -> uuid.UUID:
    terms = {"starts_at": MONTH, "ends_at": LAST} | term
    with shop.sessions.begin() as session:
        made = promises.promise_spend(
            session,
            tenant_id=customer.tenant_id,
            p_per_month=p_per_month,
            reason="contract",
            author="ann",
            **terms,
        )
        return made.id


def reserve(meter: Meter, replicas: int, hours: float) -> uuid.UUID:
    with meter.shop.sessions.begin() as session:
        made = promises.reserve(
            session,
            tenant_id=meter.customer.tenant_id,
            configuration="h200-x4",
            replicas=replicas,
            rate_p_per_hour=COMMITTED_P,
            starts_at=at(0),
            ends_at=at(hours * HOUR),
            reason="contract",
            author="ann",
        )
        return made.id


def reckon(shop: Shop, now: datetime) -> None:
    count = 1
    while count:
        with shop.sessions.begin() as session:
            count = dues.fall_due(session, now)
    collect(shop)


def collect(shop: Shop) -> None:
    count = 1
    while count:
        with shop.sessions.begin() as session:
            count = dues.collect(session)


def due_p(shop: Shop) -> list[int]:
    with shop.sessions.begin() as session:
        return list(
            session.scalars(select(CommitmentDue.due_p).order_by(CommitmentDue.period_start))
        )


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(1000 * USD)


def test_what_a_month_lacks_is_charged_once(shop: Shop, customer: Customer) -> None:
    spend(shop, customer, 100 * USD)
    reckon(shop, NEXT + timedelta(minutes=59))
    assert shop.balance(customer).balance_p == 1000 * USD
    reckon(shop, NEXT + timedelta(hours=1))
    reckon(shop, NEXT + timedelta(hours=1))
    assert shop.balance(customer).balance_p == 900 * USD
    assert shop.books().violations == []


def test_a_term_ends(shop: Shop, customer: Customer) -> None:
    spend(shop, customer, 100 * USD)
    reckon(shop, datetime(2035, 1, 1, tzinfo=UTC))
    assert due_p(shop) == [100 * USD, 100 * USD]


def test_one_whose_month_goes_on_does_not_stand_in_the_way(shop: Shop, customer: Customer) -> None:
    spend(shop, customer, 100 * USD, starts_at=NEXT)
    spend(shop, customer, 100 * USD)
    with shop.sessions.begin() as session:
        assert dues.fall_due(session, NEXT + timedelta(hours=2), limit=1) == 1


def test_a_promise_of_this_month_counts_what_was_used_in_it(shop: Shop) -> None:
    meter = Meter(shop, shop.customer(1000 * USD))
    now = datetime.now(UTC)
    month = datetime(now.year, now.month, 1, tzinfo=UTC)
    spend(shop, meter.customer, 100 * USD, starts_at=month)
    meter.see(meter.proof(uuid.uuid4(), 0, HOUR, ended=True))
    meter.charge()
    reckon(shop, month + timedelta(days=32, hours=2))
    assert due_p(shop)[0] == 100 * USD - RATE_P
    assert shop.balance(meter.customer).balance_p == 900 * USD


def test_what_the_balance_does_not_cover_is_collected_as_money_comes_in(shop: Shop) -> None:
    customer = shop.customer(30 * USD)
    spend(shop, customer, 100 * USD, ends_at=NEXT)
    reckon(shop, LAST)
    assert shop.balance(customer).balance_p == 0
    shop.top_up(customer, 50 * USD)
    collect(shop)
    assert shop.balance(customer).balance_p == 0
    shop.top_up(customer, 50 * USD)
    collect(shop)
    collect(shop)
    assert shop.balance(customer).balance_p == 30 * USD
    assert shop.books().violations == []


def test_budgets_count_what_is_collected_once(shop: Shop, customer: Customer) -> None:
    spend(shop, customer, 100 * USD, ends_at=NEXT)
    with shop.sessions.begin() as session:
        made = budget_terms.create(
            session, tenant_id=customer.tenant_id, period="total", limit_p=150 * USD
        )
    reckon(shop, LAST)
    collect(shop)
    with shop.sessions.begin() as session:
        found = budget_terms.get(session, tenant_id=customer.tenant_id, budget_id=made.id)
    assert found.spent_p == 100 * USD


def test_money_held_for_requests_is_not_collected(shop: Shop) -> None:
    customer = shop.customer(USD)
    shop.hold(customer)
    spend(shop, customer, 100 * USD, ends_at=NEXT)
    reckon(shop, LAST)
    balance = shop.balance(customer)
    assert balance.balance_p == balance.held_p > 0


def test_a_reservation_that_is_not_used_is_due_whole(shop: Shop, customer: Customer) -> None:
    meter = Meter(shop, customer)
    reserve(meter, 2, hours=30)
    reckon(shop, at(32 * HOUR))
    assert sum(due_p(shop)) == 2 * COMMITTED_P * 30
    assert shop.balance(customer).balance_p == 1000 * USD - 2 * COMMITTED_P * 30
    assert shop.books().violations == []


def test_reserved_replicas_cost_their_rate_and_the_rest_of_the_term_is_due(
    shop: Shop, customer: Customer
) -> None:
    meter = Meter(shop, customer)
    reserve(meter, 1, hours=10)
    uid = uuid.uuid4()
    for hour in range(1, 5):
        meter.see(meter.proof(uid, 0, hour * HOUR))
        meter.charge()
    meter.see(meter.proof(uid, 0, 4 * HOUR, ended=True))
    meter.charge()
    assert shop.balance(customer).balance_p == 1000 * USD - 4 * COMMITTED_P
    reckon(shop, at(12 * HOUR))
    assert shop.balance(customer).balance_p == 1000 * USD - 10 * COMMITTED_P
    assert shop.books().violations == []


def test_no_more_replicas_than_reserved_have_the_rate_and_a_place_is_taken_over(
    shop: Shop, customer: Customer
) -> None:
    meter = Meter(shop, customer)
    reserve(meter, 1, hours=10)
    first, second = uuid.uuid4(), uuid.uuid4()
    meter.see(meter.proof(first, 0, HOUR), meter.proof(second, 1, HOUR))
    meter.charge()
    meter.see(meter.proof(first, 0, HOUR, ended=True))
    meter.see(meter.proof(second, 1, 2 * HOUR))
    meter.charge()
    assert meter.interval(first).billed_p == COMMITTED_P
    assert meter.interval(second).billed_p == cost_p(HOUR - 1) + COMMITTED_P
    assert shop.books().violations == []


def test_who_outlives_the_term_goes_back_to_the_list_price(shop: Shop, customer: Customer) -> None:
    meter = Meter(shop, customer)
    uid = uuid.uuid4()
    meter.see(meter.proof(uid, -0.5, 0))
    reserve(meter, 1, hours=1)
    meter.see(meter.proof(uid, -0.5, HOUR - 0.5))
    meter.charge()
    meter.see(meter.proof(uid, -0.5, 2 * HOUR - 0.5))
    meter.charge()
    interval = meter.interval(uid)
    assert (interval.billed_p, interval.rate_p_per_hour) == (COMMITTED_P + RATE_P, RATE_P)
    with shop.sessions.begin() as session:
        assert session.scalars(select(Commitment.used_p)).one() == COMMITTED_P
    assert shop.books().violations == []


def test_spot_replicas_take_no_place(shop: Shop, customer: Customer) -> None:
    meter = Meter(shop, customer)
    meter.publish_price(RATE_P, kind="spot")
    reserve(meter, 1, hours=10)
    meter.see(meter.proof(uuid.uuid4(), 0, HOUR, spot=True))
    meter.charge()
    assert shop.balance(customer).balance_p == 1000 * USD - RATE_P


@pytest.mark.parametrize(
    ("p_per_month", "term"),
    [
        (0, {}),
        (10**7 * USD, {}),
        (USD, {"starts_at": MONTH + timedelta(days=1)}),
        (USD, {"ends_at": NEXT + timedelta(seconds=1)}),
        (USD, {"ends_at": MONTH}),
        (USD, {"starts_at": datetime(2020, 1, 1, tzinfo=UTC)}),
    ],
    ids=["nothing", "absurd", "no month", "no month's end", "empty", "past"],
)
def test_absurd_promises_are_refused(
    shop: Shop, customer: Customer, p_per_month: int, term: dict[str, datetime]
) -> None:
    with pytest.raises(UnprocessableRequest):
        spend(shop, customer, p_per_month, **term)


def test_a_promise_of_nobody_is_refused(shop: Shop) -> None:
    nobody = Customer(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "")
    with pytest.raises(NotFound):
        spend(shop, nobody, USD)
