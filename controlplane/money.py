"""Integer picodollars: the only unit money has inside the control plane.

One picodollar (p$) is 10**-12 US dollars. A price of 1 USD per million tokens is exactly
1,000,000 p$ per token, so every token charge is an exact integer product and nothing is rounded
before an invoice. Called by every module that prices, holds, charges or prints money.
"""

from decimal import Decimal, InvalidOperation

P_PER_USD = 10**12
RATE_P_PER_USD_PER_MILLION = 10**6
MAX_ENTRY_P = 2**63 - 1


def usd_to_p(text: str) -> int:
    """Return the picodollars of a decimal dollar string such as "10.50".

    Raises:
        ValueError: not a finite decimal, finer than one picodollar, or beyond one ledger entry.
    """
    return _scaled(text, P_PER_USD, "an amount in USD, at most 12 decimal places")


def p_to_usd(amount_p: int) -> str:
    """Return an exact decimal dollar string, at least two decimal places: 1 -> "0.000000000001"."""
    sign = "-" if amount_p < 0 else ""
    whole, fraction = divmod(abs(amount_p), P_PER_USD)
    digits = f"{fraction:012d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


def usd_per_million_to_rate_p(text: str) -> int:
    """Return p$ per token for a price in USD per million tokens: "0.028" -> 28_000.

    Raises:
        ValueError: not a finite decimal, or finer than one picodollar per token.
    """
    return _scaled(text, RATE_P_PER_USD_PER_MILLION, "USD per million tokens, at most 6 decimals")


def rate_p_to_usd_per_million(rate_p: int) -> str:
    """Return USD per million tokens for a rate in p$ per token: 28_000 -> "0.028"."""
    sign = "-" if rate_p < 0 else ""
    whole, fraction = divmod(abs(rate_p), RATE_P_PER_USD_PER_MILLION)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


def _scaled(text: str, unit: int, meaning: str) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not {meaning}") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is not {meaning}")
    # 1e30 dollars is beyond any entry; refuse before the exact product can grow without bound.
    if abs(value) > 10**30:
        raise ValueError(f"{text!r} is too large")
    numerator, denominator = value.as_integer_ratio()
    scaled, remainder = divmod(numerator * unit, denominator)
    if remainder:
        raise ValueError(f"{text!r} is not {meaning}")
    if abs(scaled) > MAX_ENTRY_P:
        raise ValueError(f"{text!r} is too large")
    return scaled
