"""Periods and thresholds of budgets: pure."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.accounts.limits import Limit, Period, period_end, period_start

NOW = datetime(2026, 11, 22, 15, 4, 5, 6, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def limit(
    period: Period = "month", *, limit_p: int = 1_000, spent_p: int = 0, held_p: int = 0
) -> Limit:
    start = period_start(period, NOW)
    tenant_id = uuid.UUID(int=1)
    return Limit(
        *(uuid.UUID(int=2), tenant_id, "tenant", None, None, period),
        *(limit_p, spent_p, held_p, start, [50, 100]),
    )


def test_a_day_and_a_month_begin_in_utc() -> None:
    late_in_new_york = datetime(2026, 11, 30, 20, tzinfo=timezone(timedelta(hours=-5)))
    assert period_start("day", late_in_new_york) == datetime(2026, 12, 1, tzinfo=UTC)
    assert period_start("month", late_in_new_york) == datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("period", ["day", "month"])
@given(now=MOMENTS)
def test_every_moment_lies_in_its_period_and_the_next_begins_at_its_end(
    period: Period, now: datetime
) -> None:
    start = period_start(period, now)
    end = period_end(period, start)
    assert end is not None
    assert start <= now < end
    assert period_start(period, end) == end
    assert period_start(period, end - timedelta(microseconds=1)) == start


def test_a_new_period_forgets_what_was_spent_and_keeps_what_is_held() -> None:
    it = limit(spent_p=900, held_p=50)
    it.roll(datetime(2026, 12, 1, tzinfo=UTC))
    assert (it.spent_p, it.held_p, it.available_p) == (0, 50, 950)
    assert it.renews_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_a_clock_that_goes_back_gives_no_fresh_budget() -> None:
    it = limit(spent_p=900)
    it.roll(datetime(2026, 10, 1, tzinfo=UTC))
    assert (it.spent_p, it.period_started_at) == (900, datetime(2026, 11, 1, tzinfo=UTC))


def test_a_total_budget_never_renews() -> None:
    it = limit("total", spent_p=900)
    it.roll(datetime(2100, 1, 1, tzinfo=UTC))
    assert (it.spent_p, it.renews_at) == (900, None)


def test_a_threshold_is_crossed_by_the_spending_that_reaches_it() -> None:
    it = limit(spent_p=0)
    it.spend(499)
    assert it.crossed() == []
    it.spend(1)
    assert it.crossed() == [50]


def test_one_spending_may_cross_all_thresholds() -> None:
    it = limit()
    it.spend(2_000)
    assert it.crossed() == [50, 100]


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(0, 1_000))
def test_each_threshold_is_crossed_once_however_it_is_spent(
    amounts: list[int], limit_p: int
) -> None:
    told = []
    it = limit(limit_p=limit_p)
    for amount_p in amounts:
        it.added_p = 0
        it.spend(amount_p)
        told += it.crossed()
    reached = [
        percent for percent in (50, 100) if limit_p and it.spent_p * 100 >= percent * limit_p
    ]
    assert told == reached
