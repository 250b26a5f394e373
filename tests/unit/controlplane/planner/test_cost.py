"""Prices of tokens on rented GPUs; figures are others' published examples."""

import pytest

from controlplane.planner.cost import (
    Mix,
    TokenPrices,
    blended_usd,
    break_even_tokens_per_day,
    break_even_tokens_per_second,
    over_the_day,
    spot_hourly_usd,
    usd_per_million,
)

PRICES = TokenPrices(hit_usd=0.0028, miss_usd=0.14, output_usd=0.28)
EIGHT_TO_ONE = Mix(input_tokens=8, output_tokens=1)


def test_a_guides_own_example() -> None:
    assert usd_per_million(7.12, 1000) == pytest.approx(1.98, abs=0.005)


def test_eight_to_one_at_list_price_is_0_156() -> None:
    assert blended_usd(PRICES, EIGHT_TO_ONE) == pytest.approx(0.156, abs=0.0005)


@pytest.mark.parametrize(
    ("hourly_usd", "rate", "daily"), [(9.42, 16_800, 1.45e9), (19.36, 34_600, 2.99e9)]
)
def test_break_even_against_list_price(hourly_usd: float, rate: float, daily: float) -> None:
    price = blended_usd(PRICES, EIGHT_TO_ONE)
    assert break_even_tokens_per_second(hourly_usd, price) == pytest.approx(rate, rel=0.005)
    assert break_even_tokens_per_day(hourly_usd, price) == pytest.approx(daily, rel=0.005)


def test_cache_hits_about_double_the_break_even() -> None:
    hits = Mix(input_tokens=8, output_tokens=1, hit_ratio=0.6)
    assert 1.7 < blended_usd(PRICES, EIGHT_TO_ONE) / blended_usd(PRICES, hits) < 2.1


def test_a_days_price_weighs_its_bands() -> None:
    assert over_the_day([(3, 0.2), (1, 0.1)]) == pytest.approx(0.175)


def test_spot_pays_for_loading_again() -> None:
    assert spot_hourly_usd(7.12, interruptions_per_day=4, start_seconds=300) == pytest.approx(
        7.12 / (1 - 1200 / 86_400)
    )
    with pytest.raises(ValueError, match="starting"):
        spot_hourly_usd(7.12, interruptions_per_day=300, start_seconds=300)
