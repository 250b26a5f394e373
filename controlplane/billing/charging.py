"""What a request is billed for: its reported usage, never more than was set aside. Pure.

Called by `settlement`. An honest engine stays within the hold, so every cap that bites is a
discrepancy that is told to the operator; the customer pays the lower figure.
"""

from typing import Literal

import msgspec

from controlplane.pricing.rating import ChargeLine, Price, charge_lines
from controlplane.usage.records import TokenUsage

Discrepancy = Literal["beyond_hold", "late", "no_hold"]

NOTHING = TokenUsage()


class Cover(msgspec.Struct, frozen=True):
    """The hold of a request: what it covers, and whether the money is still set aside."""

    prompt_tokens: int
    completion_tokens: int
    is_open: bool


class Bill(msgspec.Struct, frozen=True):
    """What to charge. `usage` x price = sum of `lines` = `charge_p`, always."""

    usage: TokenUsage
    lines: list[ChargeLine]
    discrepancy: Discrepancy | None

    @property
    def charge_p(self) -> int:
        return sum(line.amount_p for line in self.lines)


def bill(reported: TokenUsage, price: Price, cover: Cover | None, *, available_p: int) -> Bill:
    """Return the bill of one request.

    Args:
        reported: what the engine said, as journalled.
        price: the version pinned by the hold.
        cover: the hold; None when there never was one, which bills nothing.
        available_p: what the account may still spend, for a hold that was released before its
            usage came: billed when covered, else waived.
    """
    if cover is None:
        return Bill(NOTHING, [], None if reported == NOTHING else "no_hold")
    usage = _capped(reported, cover)
    lines = charge_lines(
        price,
        hit_tokens=usage.hit_tokens,
        miss_tokens=usage.miss_tokens,
        output_tokens=usage.output_tokens,
    )
    if not cover.is_open and sum(line.amount_p for line in lines) > available_p:
        return Bill(NOTHING, [], "late")
    return Bill(usage, lines, None if usage == reported else "beyond_hold")


def _capped(reported: TokenUsage, cover: Cover) -> TokenUsage:
    hit = min(reported.hit_tokens, cover.prompt_tokens)
    output = min(reported.output_tokens, cover.completion_tokens)
    return TokenUsage(
        hit_tokens=hit,
        miss_tokens=min(reported.miss_tokens, cover.prompt_tokens - hit),
        output_tokens=output,
        reasoning_tokens=min(reported.reasoning_tokens, output),
    )
