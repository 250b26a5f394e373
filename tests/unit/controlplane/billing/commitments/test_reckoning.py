"""Dues of commitments are exact for any schedule. Pure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.billing.commitments.reckoning import (
    day_after,
    month_after,
    reserved_p,
    shortfall_p,
    unused_p,
)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_months_follow_each_other(moment: datetime, expected: datetime) -> None:
    assert month_after(moment) == expected


def test_a_day_ends_at_midnight_in_utc() -> None:
    east = datetime.fromisoformat("2026-11-01T02:00:00+05:00")
    assert day_after(east) == datetime(2026, 11, 1, tzinfo=UTC)


@given(st.integers(1, 10**18), st.integers(0, 10**19))
def test_a_month_and_its_due_are_never_less_than_promised(promised_p: int, used_p: int) -> None:
    due_p = shortfall_p(promised_p, used_p)
    assert used_p + due_p == max(promised_p, used_p)


rates = st.integers(1, 10**16)
periods = st.lists(
    st.tuples(st.integers(1, 10**9), st.integers(0, 10**15)), min_size=1, max_size=30
)


@given(rates, st.integers(1, 8), periods)
def test_a_term_costs_what_is_promised_however_often_it_is_reckoned(
    rate_p: int, replicas: int, schedule: list[tuple[int, int]]
) -> None:
    elapsed_ms = used_p = due_p = before_p = 0
    for period_ms, more_p in schedule:
        elapsed_ms += period_ms
        used_p += more_p
        promised_p = reserved_p(rate_p, replicas, timedelta(milliseconds=elapsed_ms))
        due = unused_p(promised_p, used_p=used_p, due_p=due_p)
        assert due <= promised_p - before_p
        assert due == 0 or used_p + due_p + due == promised_p
        due_p, before_p = due_p + due, promised_p
    assert before_p == rate_p * replicas * elapsed_ms // 3_600_000
    assert used_p + due_p >= before_p
