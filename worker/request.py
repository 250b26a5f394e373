"""One generation request as the engine knows it. Made by the server, owned by the scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class FinishReason(StrEnum):
    """Why a generation ended; the wire's words."""

    STOP = "stop"
    LENGTH = "length"
    ABORTED = "aborted"
    ERROR = "error"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. `temperature` 0 is greedy: the highest logit, lowest id on a tie."""

    max_tokens: int  # 0: only the prompt is run, for `prompt_logprobs`
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    seed: int = 0
    logit_bias: dict[int, float] = field(default_factory=dict)
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None  # alternatives per output token, 0..20; None: no logprobs at all
    prompt_logprobs: int | None = None  # the same for prompt tokens (`echo`)


class Grammar(Protocol):
    """What an answer must look like."""

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        """One bit per token id, lowest first: which tokens may follow the output so far. Empty
        when none can."""
        ...

    def allowed_after(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        """The same after each of `draft_token_ids`, should they follow the output last asked about;
        ends before the first that may not. The output is none the wiser."""
        ...


@dataclass(slots=True, eq=False)
class Request:
    """A request's whole engine state. Positions below `computed_tokens` are in the KV cache. One
    that goes on from another engine begins with that one's `output_token_ids`."""

    request_id: str
    # Out of repr, so that no prompt gets into a traceback.
    prompt_token_ids: list[int] = field(repr=False)
    sampling: SamplingParams
    cache_salt: bytes = field(default=b"", repr=False)
    priority: int = 0  # lower is served sooner
    fairness_key: str = field(default="", repr=False)  # whose work this is
    deadline: float | None = None  # seconds on the monotonic clock
    grammar: Grammar | None = field(default=None, repr=False)
    output_token_ids: list[int] = field(default_factory=list, repr=False)
    draft_token_ids: list[int] = field(default_factory=list, repr=False)  # may follow the output
    computed_tokens: int = 0
    cache_hit_tokens: int = 0  # taken from the prefix cache at first, truly not computed again
    pages: list[int] = field(default_factory=list)
    state_slot: int = -1
    finish_reason: FinishReason | None = None

    @property
    def token_count(self) -> int:
        """Prompt and output tokens so far."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Ids at positions [start, stop) over prompt and output."""
        split = len(self.prompt_token_ids)
        if stop <= split:
            return self.prompt_token_ids[start:stop]
        if start >= split:
            return self.output_token_ids[start - split : stop - split]
        return self.prompt_token_ids[start:] + self.output_token_ids[: stop - split]
