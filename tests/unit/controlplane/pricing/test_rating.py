"""Rating: exact products, and a bound that no request exceeds."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from controlplane.pricing.rating import Price, bound_p, charge_lines

tokens = st.integers(0, 2**21)
rates = st.integers(0, 10**10)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    hit, miss = sorted([draw(rates), draw(rates)])
    return Price(
        uuid.UUID(int=0), "model", "serverless", hit, miss, draw(rates), "peak", draw(rates)
    )


def test_each_class_is_tokens_times_rate() -> None:
    price = Price(uuid.UUID(int=0), "model", "serverless", 2_800, 140_000, 280_000)
    lines = charge_lines(price, hit_tokens=1_024, miss_tokens=976, output_tokens=30)
    assert [(line.token_class, line.tokens, line.amount_p) for line in lines] == [
        ("hit", 1_024, 2_867_200),
        ("miss", 976, 136_640_000),
        ("output", 30, 8_400_000),
    ]


def test_what_costs_nothing_has_no_line() -> None:
    price = Price(uuid.UUID(int=0), "model", "serverless", 0, 140_000, 280_000)
    lines = charge_lines(price, hit_tokens=5, miss_tokens=0, output_tokens=1)
    assert [line.token_class for line in lines] == ["output"]


@given(prices(), tokens, tokens, tokens)
def test_no_request_within_its_bounds_costs_more_than_the_bound(
    price: Price, hit: int, miss: int, output: int
) -> None:
    lines = charge_lines(price, hit_tokens=hit, miss_tokens=miss, output_tokens=output)
    bound = bound_p(price, prompt_tokens=hit + miss, completion_tokens=output)
    assert sum(line.amount_p for line in lines) <= bound
    assert all(line.amount_p == line.tokens * line.rate_p > 0 for line in lines)


def test_a_request_is_billed_once_when_any_token_was_used() -> None:
    price = Price(uuid.UUID(int=0), "model", "serverless", 0, 0, 0, "peak", 7)
    (line,) = charge_lines(price, hit_tokens=1, miss_tokens=0, output_tokens=0)
    assert (line.token_class, line.tokens, line.rate_p, line.amount_p) == ("request", 1, 7, 7)
    assert charge_lines(price, hit_tokens=0, miss_tokens=0, output_tokens=0) == []
