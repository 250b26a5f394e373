"""Which tokens an answer may go on with: JSON modes and tool calls enforced while sampling.

`chat` compiles a grammar per request; the scheduler asks it for a mask before every token. All of
a grammar's state follows from the output's token ids, so that a preempted or moved request needs
no care.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import deepseek_recipe as recipe
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from worker.encoding.lark import answer_grammar
from worker.encoding.tokenizer import Tokenizer
from worker.errors import InvalidRequest
from worker.request import Grammar


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """All that a grammar is built from, in plain data. `reasoning`: the answer begins with it;
    `calls`: tools may be called."""

    text: str
    reasoning: bool
    calls: bool


class AnswerGrammar:
    """One answer's way through its grammar, which begins where reasoning ends. Belongs to one
    request."""

    def __init__(self, compiler: "GrammarCompiler", matcher: LLMatcher, form: AnswerForm) -> None:
        self.form = form
        self._compiler = compiler
        self._matcher = matcher
        self._reasoning = form.reasoning
        self._calls = form.calls
        self._seen = 0
        self._mask = b""  # of the output last asked about

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        """One bit per token id, lowest first: what may follow `output_token_ids`, which only ever
        grow. Empty when the grammar cannot go on."""
        for token_id in output_token_ids[self._seen :]:
            self._advance(token_id)
        self._seen = len(output_token_ids)
        self._mask = self._mask_after(output_token_ids[-1] if output_token_ids else None)
        return self._mask

    def allowed_after(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        """What may follow each of `draft_token_ids`, should they follow the output last asked
        about; ends before the first that may not."""
        ahead = self.copy()
        masks = [self._mask]
        for token_id in draft_token_ids:
            if not _allows(masks[-1], token_id):
                break
            ahead._advance(token_id)
            masks.append(ahead._mask_after(token_id))
        return masks[1:]

    def copy(self) -> "AnswerGrammar":
        """The same, at the same place, for another answer. Takes microseconds."""
        twin = copy.copy(self)
        twin._matcher = self._matcher.deep_copy()
        return twin

    def _mask_after(self, last: int | None) -> bytes:
        if self._reasoning:
            return self._compiler.reasoning_mask(last, calls=self._calls)
        return self._compiler.mask(self._matcher)

    def _advance(self, token_id: int) -> None:
        if not self._reasoning:
            self._matcher.consume_token(token_id)
        elif token_id == self._compiler.thinking_end:
            self._reasoning = False
        elif token_id == self._compiler.dsml:
            # The block of calls has begun without </think>; so does the chat parser read it.
            self._reasoning = False
            self._matcher.consume_tokens([self._compiler.less_than, token_id])


class Foretold:
    """The grammar of an answer whose beginning is known: `token_ids`, then as `then` allows."""

    def __init__(self, token_ids: Sequence[int], then: Grammar | None, *, vocab_size: int) -> None:
        self._token_ids = token_ids
        self._then = then
        self._any = b"\xff" * ((vocab_size + 7) // 8)
        self._seen = 0

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        """See `worker.request.Grammar`."""
        self._seen = len(output_token_ids)
        if self._seen < len(self._token_ids):
            byte, bit = divmod(self._token_ids[self._seen], 8)
            return bytes(byte) + bytes([1 << bit])
        return self._any if self._then is None else self._then.allowed(output_token_ids)

    def allowed_after(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        """See `worker.request.Grammar`; makes no guesses as long as everything is known."""
        if self._seen < len(self._token_ids):
            return []
        if self._then is None:
            return [self._any] * len(draft_token_ids)
        return self._then.allowed_after(draft_token_ids)


class GrammarCompiler:
    """llguidance with one tokenizer. Loading takes some tenths of a second. Safe to use from
    several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        eos = tokenizer.control_id(recipe.SpecialToken.Eos.default_str())
        self.thinking_end = tokenizer.control_id(recipe.SpecialToken.ThinkingEnd.default_str())
        self.dsml = tokenizer.control_id(recipe.SpecialToken.Dsml.default_str())
        (self.less_than,) = tokenizer.encode("<")
        self._tokenizer = tokenizer
        self._matching = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, eos)))
        reasoning = bytearray(b"\xff" * ((tokenizer.vocab_size + 7) // 8))
        reasoning[eos // 8] &= ~(1 << eos % 8)
        self._before_markup = bytes(reasoning)
        reasoning[self.dsml // 8] &= ~(1 << self.dsml % 8)
        self._in_reasoning = bytes(reasoning)

    def compile(
        self,
        request: recipe.ConversationRequest,
        parameters: Mapping[str, Any],
        *,
        one_call: bool,
    ) -> AnswerGrammar | None:
        """The grammar of the answer to `request`, whose tools take `parameters`; None when any
        text will do. `one_call` limits tool calls to one. Raises InvalidRequest. May take long:
        call it off the event loop."""
        conversation = request.conversation
        text = answer_grammar(conversation, parameters, dsml=self.dsml, one_call=one_call)
        if text is None:
            return None
        if any(message.prefix for message in conversation.messages):
            raise InvalidRequest(
                "an assistant prefix cannot be combined with response_format or strict tools",
                param="messages",
            )
        matcher = self._matcher(text)
        if not self.mask(matcher):
            reason = matcher.get_error().splitlines()[0]
            reason = "nothing satisfies it" if reason == "NoExtensionBias" else reason
            raise InvalidRequest(f"the form of the answer cannot be enforced: {reason}")
        stage = request.parsing_options.thinking_initial_stage
        reasoning = stage is not None and stage.starts_in_reasoning()
        form = AnswerForm(text, reasoning=reasoning, calls=bool(conversation.tools))
        return AnswerGrammar(self, matcher, form)

    def build(self, form: AnswerForm) -> AnswerGrammar:
        """The grammar of `form`, which this or another compiler has compiled before."""
        return AnswerGrammar(self, self._matcher(form.text), form)

    def _matcher(self, text: str) -> LLMatcher:
        return LLMatcher(self._matching, text, log_level=0)

    def mask(self, matcher: LLMatcher) -> bytes:
        """What may come next; empty when `matcher` has failed, which only this call may show."""
        allowed = b"" if matcher.is_error() else matcher.compute_bitmask()
        return b"" if matcher.is_error() else allowed

    def reasoning_mask(self, last: int | None, *, calls: bool) -> bytes:
        """What may follow the token `last` in reasoning: all but the end of the answer, and markup
        only where it can begin `calls`."""
        opens = calls and last is not None and self._tokenizer.token_bytes(last).endswith(b"<")
        return self._before_markup if opens else self._in_reasoning


def _allows(mask: bytes, token_id: int) -> bool:
    at, bit = divmod(token_id, 8)
    return at < len(mask) and bool(mask[at] >> bit & 1)


class _Vocabulary:
    """A tokenizer as llguidance reads one. Control tokens match no text, only their ids."""

    def __init__(self, tokenizer: Tokenizer, eos: int) -> None:
        self.eos_token_id = eos
        self.bos_token_id = None
        self.tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = tokenizer.control_ids
        self._tokenizer = tokenizer

    def __call__(self, text: Any) -> list[int]:
        return self._tokenizer.encode(text.decode() if isinstance(text, bytes) else text)
