"""Whether a request's bill fits what its engines wrote down. Pure; called by `comparison`.

An engine counts from the answer's beginning, also when it goes on where another broke off: the
longest count is the answer's. It may be ahead of the bill where the client left or a process died,
because tokens that nobody was sent are nobody's debt. Anywhere else both say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from controlplane.usage.records import TokenUsage

Kind = Literal["overbilled", "underbilled", "unbilled", "unwitnessed"]

NOTHING: Final = TokenUsage()
# How a request ended that had its whole answer; elsewhere an engine may have made more than left.
WHOLE: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an engine said of one attempt.

    Not `is_exact`: it died, and had perhaps made more. `took_over`: another engine had begun the
    answer, and had read the prompt with a cache of its own.
    """

    usage: TokenUsage
    is_exact: bool = True
    took_over: bool = False


def witnessed(attempts: Sequence[Attempt]) -> TokenUsage:
    """Return what all attempts at a request, the first one first, amount to.

    The prompt is what the first attempt that read it says; the output what the longest one says.
    """
    read = [it.usage for it in attempts if _prompt(it.usage)]
    first = read[0] if read else NOTHING
    return TokenUsage(
        first.hit_tokens,
        first.miss_tokens,
        max((it.usage.output_tokens for it in attempts), default=0),
        max((it.usage.reasoning_tokens for it in attempts), default=0),
    )


def verdict(
    billed: TokenUsage | None, finish_reason: str | None, attempts: Sequence[Attempt]
) -> Kind | None:
    """Return what is wrong; None when bill and witness agree.

    Args:
        billed: the settled usage; None when no bill came and none can come any more.
        finish_reason: how the settled request ended.
        attempts: what engines said, the first attempt first; empty when none knows the request,
            though whoever should has told all it knows.
    """
    if not attempts:
        return "unwitnessed" if billed is not None and billed != NOTHING else None
    seen = witnessed(attempts)
    if billed is None:
        return None if seen == NOTHING else "unbilled"
    if _is_over(billed, attempts, seen):
        return "overbilled"
    if finish_reason in WHOLE and (
        _prompt(billed) < _prompt(seen) or billed.output_tokens < seen.output_tokens
    ):
        return "underbilled"
    return None


def _is_over(billed: TokenUsage, attempts: Sequence[Attempt], seen: TokenUsage) -> bool:
    """More tokens than any engine made, or fewer of them from a cache than every engine found.

    The prompt is billed as the first engine told it, so of the cache nobody else can say anything.
    """
    if not all(it.is_exact for it in attempts):
        return False
    longest = max(_prompt(it.usage) for it in attempts)
    found = min((it.usage.hit_tokens for it in attempts if _prompt(it.usage)), default=0)
    return (
        _prompt(billed) > longest
        or billed.output_tokens > seen.output_tokens
        or (
            _prompt(billed) == longest
            and billed.hit_tokens < found
            and not all(it.took_over for it in attempts)
        )
    )


def _prompt(usage: TokenUsage) -> int:
    return usage.hit_tokens + usage.miss_tokens
