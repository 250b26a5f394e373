"""What tokens and GPU time cost: pure integers.

Tokens are exact products, without any rounding. Called by holds (the bound before a request) and by
settlement (the charge after it), so that both speak of the same price; GPU time by `billing`.
"""

import uuid
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

MS_PER_HOUR = 3_600_000
# The band of a price that is the same at every hour.
STANDARD: Final = "standard"

TokenClass = Literal["hit", "miss", "output", "request"]


@dataclass(frozen=True, slots=True)
class Price:
    """One band of a price version. Rates are p$ per token; the book keeps hit <= miss.

    `request_rate_p` is p$ per request, paid once by each that used any token at all.
    """

    version_id: uuid.UUID
    model: str
    path: str
    hit_rate_p: int
    miss_rate_p: int
    output_rate_p: int
    band: str = STANDARD
    request_rate_p: int = 0


class ChargeLine(msgspec.Struct, frozen=True):
    """One class of tokens on a bill: amount_p = tokens * rate_p. The class `request` counts 1."""

    token_class: TokenClass
    tokens: int
    rate_p: int
    amount_p: int


def charge_lines(
    price: Price, *, hit_tokens: int, miss_tokens: int, output_tokens: int
) -> list[ChargeLine]:
    """Return the bill of a request, a line for each class that costs something.

    The request itself is billed as soon as a token of its prompt was read or one was produced.
    """
    ran = int(hit_tokens + miss_tokens + output_tokens > 0)
    classes: tuple[tuple[TokenClass, int, int], ...] = (
        ("hit", hit_tokens, price.hit_rate_p),
        ("miss", miss_tokens, price.miss_rate_p),
        ("output", output_tokens, price.output_rate_p),
        ("request", ran, price.request_rate_p),
    )
    return [
        ChargeLine(token_class, tokens, rate_p, tokens * rate_p)
        for token_class, tokens, rate_p in classes
        if tokens * rate_p
    ]


def bound_p(price: Price, *, prompt_tokens: int, completion_tokens: int) -> int:
    """Return the most that a request of so many tokens can cost: every prompt token a miss."""
    return (
        price.request_rate_p
        + prompt_tokens * price.miss_rate_p
        + completion_tokens * price.output_rate_p
    )


def gpu_time_p(rate_p_per_hour: int, duration_ms: int) -> int:
    """Return what the first `duration_ms` of a replica's life cost: floor(R x t / 3.6M), in p$.

    A tick is the difference of two of these, so any schedule of ticks has the same sum.
    """
    return rate_p_per_hour * duration_ms // MS_PER_HOUR
