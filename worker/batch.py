"""All that scheduler and runner exchange: one step's work, and its result. Plain data, no torch.

A sequence's cache is a list of logical pages (`ModelConfig.page_tokens` positions each, the same
page id in every layer's tensors) and one state slot (window rings and compressor tails). What of a
slot is needed to go on from a page boundary may be kept as a snapshot, for prefix reuse.

What a step makes once for every sequence is not frozen: a frozen dataclass takes three times as
long to construct, and with hundreds of sequences that is felt.
"""

from dataclasses import dataclass, field

from worker.request import SamplingParams


@dataclass(slots=True)
class ScheduledSequence:
    """Run `token_ids` at positions start, start+1, ... of one sequence.

    `pages` covers positions 0 .. start+len(token_ids)-1. The last `draft_count` tokens are guesses
    of what will be sampled. `sample_position` is the number of tokens the sequence has before them
    when the last certain token's logits are to be sampled (it keys the seeded random stream, so
    that a sequence samples the same wherever and however it is batched); None while a prompt is
    still being prefilled: `next_token_id` is then what follows the chunk. `prompt_targets` asks for
    the log-probability of each given token id at the chunk's positions (shifted by one: the token
    that follows). `allowed_tokens` has a mask for what is sampled after the last certain token and
    after each draft, each one bit per token id, lowest first (None: all ids everywhere; an empty
    mask: none, the sequence must fail there). The pages hold the entries of positions below
    `known_tokens` (a page boundary) already, and share them: they are not written again.
    """

    request_id: str
    token_ids: list[int]
    start: int
    pages: list[int]
    state_slot: int
    sampling: SamplingParams
    sample_position: int | None
    prompt_targets: list[int] | None = None
    allowed_tokens: list[bytes] | None = None
    draft_count: int = 0
    next_token_id: int | None = None
    known_tokens: int = 0

    @property
    def draft_token_ids(self) -> list[int]:
        """The guesses among `token_ids`."""
        return self.token_ids[len(self.token_ids) - self.draft_count :]


@dataclass(frozen=True, slots=True)
class StateCopy:
    """Between a state slot and a snapshot of a sequence's state after `token_count` tokens, a page
    boundary."""

    slot: int
    snapshot: int
    token_count: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward. Slots in `resets` are cleared, those of `copies_before` take over a snapshot,
    then every sequence runs, then `copies_after` fill snapshots from slots."""

    sequences: list[ScheduledSequence]
    resets: list[int] = field(default_factory=list)
    copies_before: list[StateCopy] = field(default_factory=list)
    copies_after: list[StateCopy] = field(default_factory=list)

    @property
    def token_count(self) -> int:
        """Tokens in this forward."""
        return sum(len(s.token_ids) for s in self.sequences)


@dataclass(slots=True)
class TokenLogprob:
    """A token, its natural-log probability (before temperature), and the most likely tokens; no
    probability where the request asks for none."""

    token_id: int
    logprob: float | None
    top: list[tuple[int, float]] = field(default_factory=list)


@dataclass(slots=True)
class SequenceOutput:
    """What a forward gave one sequence: `tokens` that follow it, in order: one, and one more for
    each draft that proved right; none while a prompt is being prefilled. `error`: why it must fail.
    `draft_token_ids` are guesses at what comes after `tokens`; any guess is a good one to try."""

    request_id: str
    tokens: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    error: str | None = None
    draft_token_ids: list[int] = field(default_factory=list)
