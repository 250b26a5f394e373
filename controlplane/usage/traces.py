"""One request's records folded into what is known of it. Pure.

The running journal and its replay after a crash fold with the same code, so a restart bills what
the dead process would have billed. Called by `journal`, `sink` and `recovery`.
"""

from dataclasses import dataclass

from controlplane.usage.records import Final, Opened, Progress, TokenUsage

LOST = "lost"
# Far beyond any context; keeps a mad engine's numbers inside the database's integers.
_MAX_TOKENS = 2**31 - 1
_NOTHING = TokenUsage()


@dataclass(slots=True)
class Trace:
    """A request so far. `usage` is the highest seen; times are µs since 1970 UTC.

    `finish_reason` is None while the request runs, or for ever when its gateway died.
    """

    opened: Opened
    replica: str | None = None
    usage: TokenUsage = _NOTHING
    finish_reason: str | None = None
    first_token_at_us: int | None = None
    finished_at_us: int | None = None

    def apply(self, record: Progress | Final) -> None:
        """Fold the next record in; any order and any repetition gives the same trace."""
        assert record.request_id == self.opened.request_id
        self.usage = _highest(self.usage, record.usage)
        self.replica = record.replica or self.replica
        if isinstance(record, Progress):
            first = self.first_token_at_us
            self.first_token_at_us = record.at_us if first is None else min(first, record.at_us)
        else:
            self.finish_reason = record.finish_reason
            self.first_token_at_us = record.first_token_at_us or self.first_token_at_us
            self.finished_at_us = record.finished_at_us


def _highest(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    """Return the longest prompt, the most of it found in a cache, and the most output; `other`
    comes from an engine and may be nonsense.

    An engine may tell of its cache only at the end: what was a miss until then becomes a hit, and
    both are never more than the prompt.
    """
    if _only_grows(one, other):
        return other
    hit, output = _sane(other.hit_tokens), _sane(other.output_tokens)
    prompt = max(one.hit_tokens + one.miss_tokens, _sane(hit + _sane(other.miss_tokens)))
    hit = max(one.hit_tokens, hit)
    return TokenUsage(
        hit_tokens=hit,
        miss_tokens=prompt - hit,
        output_tokens=max(one.output_tokens, output),
        reasoning_tokens=max(one.reasoning_tokens, min(output, _sane(other.reasoning_tokens))),
    )


def _only_grows(one: TokenUsage, other: TokenUsage) -> bool:
    """Whether `other` is sane and in no class below `one`, as it is all but always."""
    return (
        0 <= one.hit_tokens <= other.hit_tokens
        and 0 <= one.miss_tokens <= other.miss_tokens
        and one.output_tokens <= other.output_tokens <= _MAX_TOKENS
        and one.reasoning_tokens <= other.reasoning_tokens <= other.output_tokens
        and other.hit_tokens + other.miss_tokens <= _MAX_TOKENS
    )


def _sane(tokens: int) -> int:
    return min(max(tokens, 0), _MAX_TOKENS)
