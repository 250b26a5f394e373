"""Picodollars and dollar strings are the same money."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.money import (
    MAX_ENTRY_P,
    p_to_usd,
    rate_p_to_usd_per_million,
    usd_per_million_to_rate_p,
    usd_to_p,
)

entries = st.integers(-MAX_ENTRY_P, MAX_ENTRY_P)


@given(entries)
def test_dollars_and_picodollars_are_the_same_money(amount_p: int) -> None:
    assert usd_to_p(p_to_usd(amount_p)) == amount_p


@given(entries)
def test_rates_are_the_same_both_ways(rate_p: int) -> None:
    assert usd_per_million_to_rate_p(rate_p_to_usd_per_million(rate_p)) == rate_p


def test_a_price_per_million_is_a_rate_in_picodollars() -> None:
    assert usd_per_million_to_rate_p("0.028") == 28_000


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "1e40", "0.0000000000001", "9223373"])
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|too large"):
        usd_to_p(text)
