"""What the doctor says of money: each thing that nobody looks after, with what to do."""

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import update
from support.shop import GATEWAY, Shop

from controlplane.accounts.models import GatewayEpoch
from controlplane.cli import data_doctor as doctor
from controlplane.cli.findings import Finding
from controlplane.registry import gateways
from controlplane.registry.gateways import GatewayReport
from controlplane.store import open_store
from controlplane.usage.models import StagedUsage
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)
AGO = timedelta(minutes=10)


def found(database_url: str, alive: tuple[str, ...] = (GATEWAY,)) -> dict[str, Finding]:
    return {it.check: it for it in doctor.money(database_url, alive)}


def faults(database_url: str, alive: tuple[str, ...] = (GATEWAY,)) -> dict[str, Finding]:
    return {check: it for check, it in found(database_url, alive).items() if not it.ok}


def used(shop: Shop) -> None:
    customer = shop.customer(10**12)
    shop.stage(shop.trace(customer, shop.hold(customer), USAGE))


def test_money_that_moves_is_no_fault(shop: Shop, database_url: str) -> None:
    used(shop)
    shop.hold(shop.customer(10**12))
    assert not faults(database_url)


def test_rejected_usage_is_named_with_the_command_that_lists_it(
    shop: Shop, database_url: str
) -> None:
    used(shop)
    with shop.sessions.begin() as session:
        session.execute(update(StagedUsage).values(rejected="IntegrityError"))
    told = faults(database_url)
    assert set(told) == {"Books", "Rejected usage"}
    assert told["Rejected usage"].detail.startswith("1 requests")
    assert "flashplane rejected list" in told["Rejected usage"].fix


def test_usage_that_nobody_settles_points_at_the_jobs(shop: Shop, database_url: str) -> None:
    used(shop)
    with shop.sessions.begin() as session:
        session.execute(update(StagedUsage).values(staged_at=datetime.now(UTC) - AGO))
    assert "flashplane jobs" in faults(database_url)["Settlement"].fix


def test_holds_that_nobody_gives_back_point_at_the_jobs(shop: Shop, database_url: str) -> None:
    shop.hold(shop.customer(10**12))
    with shop.sessions.begin() as session:
        session.execute(update(GatewayEpoch).values(closed_at=datetime.now(UTC) - AGO))
    (told,) = faults(database_url).values()
    assert (told.check, told.detail.split()[0]) == ("Holds", "1")


def test_a_dead_gateways_journal_is_named_with_its_open_holds(
    shop: Shop, database_url: str
) -> None:
    shop.hold(shop.customer(10**12))
    (told,) = faults(database_url, alive=("another",)).values()
    assert told.check == "Journals"
    assert GATEWAY in told.detail
    assert "1 open holds" in told.detail
    assert "gateway-replay" in told.fix


def test_a_broken_rule_is_quoted(shop: Shop, database_url: str) -> None:
    shop.hold(shop.customer(10**12))
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE holds SET state = 'released'")
    assert "the held sum is the sum of open holds" in faults(database_url)["Books"].detail


@pytest.mark.usefixtures("shop")
def test_gateways_that_report_to_redis_are_alive(database_url: str, redis_url: str) -> None:
    assert not {it.check: it for it in doctor.examine(database_url, redis_url)}["Journals"].ok
    with open_store(redis_url) as store:
        gateways.TABLE.publish(store, GATEWAY, GatewayReport(GATEWAY, time.time()))
    assert all(it.ok for it in doctor.examine(database_url, redis_url))


def test_a_current_database_is_told_from_an_older_one(database_url: str) -> None:
    assert doctor.database(database_url).detail == "reachable, its schema is current"
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM alembic_version")
    finding = doctor.database(database_url)
    assert (finding.ok, "will be migrated" in finding.detail) == (True, True)


def test_a_database_of_a_newer_version_is_a_fault(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    finding = doctor.database(database_url)
    assert (finding.ok, "9999" in finding.fix) == (False, True)


def test_servers_that_do_not_answer_are_faults() -> None:
    assert not doctor.database("postgresql://127.0.0.1:1/none").ok
    assert not doctor.store("redis://127.0.0.1:1/0").ok
