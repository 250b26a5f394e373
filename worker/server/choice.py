"""One choice of an answer: its request to the engine, and what its client has been told of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.batch import TokenLogprob
from worker.encoding.grammar import Foretold
from worker.errors import InvalidParameter
from worker.request import FinishReason, Request

Entry = dict[str, Any]  # one element of an answer's `choices`


class Reader(Protocol):
    """What the tokens of one choice become on the wire."""

    @property
    def stopped(self) -> bool:
        """A stop string has ended the text."""
        ...

    @property
    def reasoning_tokens(self) -> int:
        """How many of the tokens were reasoning."""
        ...

    def start(self, prompt_logprobs: list[TokenLogprob]) -> Entry | None:
        """What comes before the first token."""
        ...

    def push(self, token: TokenLogprob) -> Entry | None:
        """What has become certain with this token; None when it is all held back."""
        ...

    def finish(self, reason: FinishReason) -> Entry:
        """What was held back, and the finish reason."""
        ...

    def silence(self) -> Entry:
        """An entry that says nothing."""
        ...

    def whole(self) -> Entry:
        """The finished choice in one piece."""
        ...

    def replay(self, token_ids: Sequence[int]) -> int:
        """Take in, before all else, the tokens that the client has already. Returns how many were
        taken in: the text ended there, or log-probabilities of the others are still owed."""
        ...


@dataclass(slots=True)
class Choice:
    """`resumed_tokens`: how many output tokens the client has from another engine; None: the
    request begins here. The last `unread_tokens` of them are generated once more, in silence."""

    index: int
    request: Request
    reader: Reader
    resumed_tokens: int | None = None
    unread_tokens: int = 0
    completion_tokens: int = 0  # resumed ones included
    started: bool = False
    finish_reason: FinishReason | None = None
    last_token_at: float = 0.0  # time.monotonic()
    token_ids: list[int] = field(default_factory=list, repr=False)  # not yet told to the client
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list, repr=False)

    def take_token_ids(self) -> list[int]:
        """The output tokens since the last call."""
        taken, self.token_ids = self.token_ids, []
        return taken

    def take(self, token: TokenLogprob) -> bool:
        """Count a token from the engine; False: the client has it already."""
        if self.unread_tokens > 0:
            self.unread_tokens -= 1
            return False
        self.completion_tokens += 1
        self.token_ids.append(token.token_id)
        return True

    def replay(self, vocab_size: int) -> None:
        """Bring a resumed choice to where its client stands; sets `finish_reason` when that is its
        end. Slow for many tokens. Raises InvalidParameter."""
        if self.resumed_tokens is None:
            return
        self.started = True
        self.completion_tokens = self.resumed_tokens
        request, ids = self.request, self.request.output_token_ids
        stops = request.sampling.stop_token_ids
        text = ids[:-1] if ids and ids[-1] in stops else ids
        taken = self.reader.replay(text)
        if not stops.isdisjoint(text) or (self.reader.stopped and taken < len(ids)):
            raise InvalidParameter(
                "resume_token_ids go on after the end of the answer", param="resume_token_ids"
            )
        if request.grammar is not None and not request.grammar.allowed(text):
            raise InvalidParameter(
                "resume_token_ids do not have the form that the answer must have",
                param="resume_token_ids",
            )
        if taken < len(text):
            request.output_token_ids, unread = ids[:taken], ids[taken:]
            request.grammar = Foretold(ids, request.grammar, vocab_size=vocab_size)
            self.unread_tokens = len(unread)
        elif self.reader.stopped or len(text) < len(ids):
            self.finish_reason = FinishReason.STOP
        elif len(ids) >= request.sampling.max_tokens:
            self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None:
            request.cache_hit_tokens = request.token_count  # nothing is computed again
