"""Roll-ups: at any moment exactly what the events sum up to."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.orm import Session
from support.shop import Customer, Shop, cost_p

from controlplane.billing import settlement
from controlplane.db import uuid7
from controlplane.usage import rollups
from controlplane.usage.records import TokenUsage
from controlplane.usage.rollups import DAY, HOUR, MINUTE, Filters

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
WRONG = "a tenant's roll-ups"
UNTIL = datetime(2100, 1, 1, tzinfo=UTC)
# What the events of a tenant sum up to by minute and key, from the events themselves.
RAW = text("""
    SELECT date_trunc('minute', started_at) AS bucket, api_key_id, count(*), sum(hit_tokens),
           sum(miss_tokens), sum(output_tokens), sum(reasoning_tokens), sum(charge_p)
    FROM usage_events WHERE tenant_id = :tenant_id GROUP BY 1, 2 ORDER BY 1, 2
""")


def by_minute_and_key(session: Session, tenant_id: uuid.UUID) -> list[tuple[Any, ...]]:
    found = rollups.sums(
        session,
        tenant_id=tenant_id,
        since=SINCE,
        until=UNTIL,
        width=MINUTE,
        group_by=["api_key_id"],
    )
    return [tuple(row) for row in found]


def by_day(session: Session, tenant_id: uuid.UUID) -> list[int]:
    """The sums of the one day that has any."""
    found = rollups.sums(session, tenant_id=tenant_id, since=SINCE, until=UNTIL, width=DAY)
    return [total for row in found for total in row[1:]]


def staged(shop: Shop, customer: Customer, minute: int, output_tokens: int) -> TokenUsage:
    usage = TokenUsage(1, 2, output_tokens, 0)
    request_id = shop.hold(customer)
    trace = shop.trace(customer, request_id, usage)
    started_at_us = int((SINCE + minute * MINUTE).timestamp() * 1e6) + 59_999_999
    trace.opened = msgspec.structs.replace(trace.opened, started_at_us=started_at_us)
    shop.stage(trace)
    return usage


class Interleaving(RuleBasedStateMachine):
    """Settlement and roll-ups, each committing, failing or pausing anywhere in the other."""

    shop: Shop

    def __init__(self) -> None:
        super().__init__()
        self.customers = [self.shop.customer(10**12) for _ in range(2)]
        self.open: dict[str, Session] = {}

    @rule(customer=st.integers(0, 1), minute=st.integers(0, 90), tokens=st.integers(0, 10))
    def stage(self, customer: int, minute: int, tokens: int) -> None:
        if "settle" not in self.open:  # it would wait for the account
            staged(self.shop, self.customers[customer], minute, tokens)

    @rule(limit=st.integers(1, 3), job=st.sampled_from(["settle", "roll_up"]))
    def begin(self, limit: int, job: str) -> None:
        if job not in self.open:
            self.open[job] = self.shop.sessions()
            step = settlement.settle if job == "settle" else rollups.roll_up
            step(self.open[job], limit)

    @rule(job=st.sampled_from(["settle", "roll_up"]), commits=st.booleans())
    def end(self, job: str, commits: bool) -> None:
        session = self.open.pop(job, None)
        if session is not None:
            with session:
                session.commit() if commits else session.rollback()

    @invariant()
    def sums_are_the_events_sums(self) -> None:
        with self.shop.sessions.begin() as session:
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            for customer in self.customers:
                raw = session.execute(RAW, {"tenant_id": customer.tenant_id})
                expected = [tuple(row) for row in raw]
                assert by_minute_and_key(session, customer.tenant_id) == expected
                assert by_day(session, customer.tenant_id) == [
                    sum(row[place] for row in expected) for place in range(2, 8) if expected
                ]

    def teardown(self) -> None:
        for session in self.open.values():
            session.close()
        while roll_up(self.shop):
            pass
        assert WRONG not in str(self.shop.books().violations)


def roll_up(shop: Shop, limit: int = 10_000) -> int:
    with shop.sessions.begin() as session:
        return rollups.roll_up(session, limit)


def test_sums_are_exact_whatever_is_under_way(shop: Shop) -> None:
    machine = type("OnThisShop", (Interleaving,), {"shop": shop})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@contextmanager
def rolling(shop: Shop, threads: int) -> Iterator[None]:
    """Jobs that roll up all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            roll_up(shop, 3)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def test_sums_are_exact_while_jobs_compete(shop: Shop) -> None:
    customer = shop.customer(10**12)
    with rolling(shop, 2):
        for minute in range(20):
            staged(shop, customer, minute, 1)
            shop.settle(1)
            with shop.sessions.begin() as session:
                assert sum(row[2] for row in by_minute_and_key(session, customer.tenant_id)) == (
                    minute + 1
                )
    while roll_up(shop):
        pass
    assert shop.books().violations == []


@pytest.mark.parametrize("rolled", [False, True])
def test_hours_days_and_filters(shop: Shop, rolled: bool) -> None:
    customer = shop.customer(10**12)
    usages = [
        staged(shop, customer, minute, tokens)
        for tokens, minute in enumerate((0, 59, 60, 1439, 1440))
    ]
    shop.settle()
    if rolled:
        roll_up(shop)

    def charges(width: timedelta, **which: Any) -> dict[datetime, int]:
        with shop.sessions.begin() as session:
            found = rollups.sums(
                session,
                tenant_id=customer.tenant_id,
                since=SINCE,
                until=UNTIL,
                width=width,
                filters=Filters(**which),
            )
        return {row.bucket: row.charge_p for row in found}

    costs = [cost_p(usage) for usage in usages]
    day = 24 * HOUR
    assert charges(day) == {SINCE: sum(costs[:4]), SINCE + day: costs[4]}
    assert charges(HOUR) == {
        SINCE: costs[0] + costs[1],
        SINCE + HOUR: costs[2],
        SINCE + 23 * HOUR: costs[3],
        SINCE + day: costs[4],
    }
    assert charges(day, project_ids=[customer.project_id]) == charges(day)
    assert charges(day, api_key_ids=[uuid7()]) == {}
    assert charges(day, models=["another"]) == {}


def test_old_minutes_are_forgotten_and_hours_stay(shop: Shop) -> None:
    customer = shop.customer(10**12)
    staged(shop, customer, 0, 1)
    staged(shop, customer, 1, 1)
    shop.settle()
    roll_up(shop)
    with shop.sessions.begin() as session:
        assert rollups.forget_minutes(session, SINCE + MINUTE) == 1
        assert len(by_minute_and_key(session, customer.tenant_id)) == 1
    assert shop.books().violations == []


def test_a_wrong_sum_is_told(shop: Shop) -> None:
    customer = shop.customer(10**12)
    staged(shop, customer, 0, 1)
    shop.settle()
    with shop.sessions.begin() as session:
        session.execute(text("DELETE FROM usage_deltas"))
    wrong = [told for told in shop.books().violations if WRONG in told]
    assert len(wrong) == len(rollups.SUMS) - 1  # none of the output was reasoning
    assert str(customer.tenant_id) in wrong[0]
