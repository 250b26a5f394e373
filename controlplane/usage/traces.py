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
    """A request so far. `usage` is the highest seen per class; times are µs since 1970 UTC.

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
    """Return the higher of each class; `other` comes from an engine and may be nonsense."""
    output = _sane(other.output_tokens)
    return TokenUsage(
        hit_tokens=max(one.hit_tokens, _sane(other.hit_tokens)),
        miss_tokens=max(one.miss_tokens, _sane(other.miss_tokens)),
        output_tokens=max(one.output_tokens, output),
        reasoning_tokens=max(one.reasoning_tokens, min(output, _sane(other.reasoning_tokens))),
    )


def _sane(tokens: int) -> int:
    return min(max(tokens, 0), _MAX_TOKENS)
