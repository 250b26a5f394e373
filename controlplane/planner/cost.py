"""What tokens cost on rented GPUs, and from when that beats buying them one by one.

Estimates in US dollars as floats, for people who choose; bills are made in `billing`.
$/M = $/h / (3.6e-3 * tokens/s): 3,600 seconds an hour over a million tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_SECONDS_A_DAY = 86_400
_HOURS_TO_MILLIONS = 3.6e-3


@dataclass(frozen=True)
class TokenPrices:
    """Of a million tokens, in US dollars."""

    hit_usd: float
    miss_usd: float
    output_usd: float


@dataclass(frozen=True)
class Mix:
    """Traffic: shares that matter, in any unit of tokens. `hit_ratio` is of the input, 0 to 1."""

    input_tokens: float
    output_tokens: float
    hit_ratio: float = 0.0


def usd_per_million(hourly_usd: float, tokens_per_second: float) -> float:
    """Return what a million tokens cost at a steady rate."""
    return hourly_usd / (_HOURS_TO_MILLIONS * tokens_per_second)


def blended_usd(prices: TokenPrices, mix: Mix) -> float:
    """Return the price of a million tokens of a mix."""
    hits = mix.input_tokens * mix.hit_ratio
    misses = mix.input_tokens - hits
    paid = hits * prices.hit_usd + misses * prices.miss_usd + mix.output_tokens * prices.output_usd
    return paid / (mix.input_tokens + mix.output_tokens)


def over_the_day(bands: Sequence[tuple[float, float]]) -> float:
    """Return the mean price of a day of bands (share of the day's tokens, price of a million).

    Prices have peak hours, so that a break-even is for a day's profile, not for a moment.
    """
    shares = sum(share for share, _ in bands)
    return sum(share * usd for share, usd in bands) / shares


def break_even_tokens_per_second(hourly_usd: float, blended_usd_per_million: float) -> float:
    """Return the rate from which rented GPUs are cheaper than tokens at that price."""
    return hourly_usd / (_HOURS_TO_MILLIONS * blended_usd_per_million)


def break_even_tokens_per_day(hourly_usd: float, blended_usd_per_million: float) -> float:
    """Return the same for a whole day."""
    return break_even_tokens_per_second(hourly_usd, blended_usd_per_million) * _SECONDS_A_DAY


def spot_hourly_usd(
    hourly_usd: float, *, interruptions_per_day: float, start_seconds: float
) -> float:
    """Return what an hour of serving costs on GPUs that are taken away and loaded anew.

    Raises:
        ValueError: it would never serve.
    """
    serving = 1.0 - interruptions_per_day * start_seconds / _SECONDS_A_DAY
    if serving <= 0:
        raise ValueError("more time would go into starting than a day has")
    return hourly_usd / serving
