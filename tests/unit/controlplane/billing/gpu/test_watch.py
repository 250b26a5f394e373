"""Funds are watched on a real database: told once, and volumes go after their time."""

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import select
from support.gpu_meter import RATE_P, USD, Meter, at, cost_p
from support.shop import Shop

from controlplane.accounts.models import Budget
from controlplane.billing.gpu import burn, stops, watch
from controlplane.deployments import rows
from controlplane.deployments.models import Deployment, FundState
from controlplane.webhooks.models import WebhookNotice

KEEP = timedelta(hours=72)
HOUR = 3600.0


def look(meter: Meter, hours_later: float = 0) -> int:
    with meter.shop.sessions.begin() as session:
        return watch.watch(session, at(meter.now + hours_later * HOUR), keep=KEEP)


def state(meter: Meter) -> FundState | None:
    with meter.shop.sessions.begin() as session:
        return session.get(FundState, meter.customer.tenant_id)


def notices(meter: Meter) -> list[str]:
    with meter.shop.sessions.begin() as session:
        return list(session.scalars(select(WebhookNotice.kind).order_by(WebhookNotice.id)))


def stopped_with_volume(meter: Meter) -> uuid.UUID:
    with meter.shop.sessions.begin() as session:
        row = rows.add(
            session,
            tenant_id=meter.customer.tenant_id,
            namespace="fp-t",
            name="dev",
            path="bare",
            spec={"state": "Stopped", "volume": {"sizeGiB": 10}},
            idempotency_key=None,
        )
        return row.id


@pytest.fixture
def meter(shop: Shop) -> Meter:
    return Meter(shop, shop.customer(30 * RATE_P))


def test_the_burn_is_everything_that_is_live_and_what_is_owed(meter: Meter) -> None:
    meter.see(*(meter.proof(uuid.uuid4(), 0, 59) for _ in range(2)))
    meter.publish_volume_price(1000)
    meter.see_volume(uuid.uuid4(), 0, 59, size_gib=10)
    with meter.shop.sessions.begin() as session:
        found = burn.burns(session, at(60))[meter.customer.tenant_id]
    assert (found.gpu_p_per_hour, found.storage_p_per_hour) == (2 * RATE_P, 10_000)
    assert found.owed_p == cost_p(59 * 2) + 10_000 * 59 // 3600


def test_who_has_enough_is_not_watched(meter: Meter) -> None:
    meter.see(meter.proof(uuid.uuid4(), 0, 61))
    assert look(meter) == 0
    assert state(meter) is None


def test_a_tenant_is_told_once_and_again_after_a_top_up(meter: Meter) -> None:
    uid = uuid.uuid4()
    for hours, told in ((7, 1), (8, 0), (29.5, 1)):
        meter.see(meter.proof(uid, 0, hours * HOUR))
        meter.charge()
        assert look(meter) == told
    meter.shop.top_up(meter.customer, 40 * RATE_P)
    assert look(meter) == 0
    meter.see(meter.proof(uid, 0, 50 * HOUR))
    meter.charge()
    assert look(meter) == 1
    found = state(meter)
    assert found is not None
    assert (found.level, found.told) == ("day", 3)
    assert notices(meter) == ["funds.low", "funds.low", "funds.low"]


def test_volumes_of_an_empty_account_go_after_their_time(shop: Shop) -> None:
    meter = Meter(shop, shop.customer())
    meter.publish_volume_price(1000)
    endpoint = stopped_with_volume(meter)
    uid = uuid.uuid4()
    told = []
    for hours in (1, 48, 49, 72, 73, 74):
        meter.see_volume(uid, 0, hours * HOUR, size_gib=10)
        meter.now = hours * HOUR
        told.append(look(meter))
    assert told == [1, 0, 1, 0, 1, 0]
    assert notices(meter) == ["funds.empty", "volumes.expiring", "volumes.deleted"]
    with shop.sessions.begin() as session:
        assert session.get_one(Deployment, endpoint).state == "deleting"


def test_a_top_up_within_the_time_keeps_them(shop: Shop) -> None:
    meter = Meter(shop, shop.customer())
    meter.publish_volume_price(1000)
    endpoint = stopped_with_volume(meter)
    uid = uuid.uuid4()
    for hours in (1, 60, 80, 100):
        meter.see_volume(uid, 0, hours * HOUR, size_gib=10)
        meter.now = hours * HOUR
        if hours == 80:
            shop.top_up(meter.customer, USD)
        look(meter)
    with shop.sessions.begin() as session:
        assert session.get_one(Deployment, endpoint).state == "active"
    assert state(meter).level == "enough"  # type: ignore[union-attr]


def test_a_used_up_budget_stops_what_runs(meter: Meter) -> None:
    with meter.shop.sessions.begin() as session:
        session.add(
            Budget(
                tenant_id=meter.customer.tenant_id,
                scope="tenant",
                period="total",
                limit_p=cost_p(61),
                spent_p=0,
                held_p=0,
                period_started_at=at(-60),
                thresholds=[],
            )
        )
    uid = uuid.uuid4()
    stopped = []
    for seconds in (60, 121):
        meter.see(meter.proof(uid, 0, seconds))
        meter.charge()
        with meter.shop.sessions.begin() as session:
            stops.stop_over_budget(session, at(meter.now))
        with meter.shop.sessions.begin() as session:
            stopped.append(session.get_one(Deployment, meter.deployment.id).out_of_funds)
    assert stopped == [False, True]
    assert meter.shop.books().violations == []
