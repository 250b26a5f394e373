# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
"""POST /v1/completions: plain text or token ids in, text out."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from worker.batch import TokenLogprob
from worker.encoding.chat_stream import MOST_UNLIKELY_LOGPROB
from worker.encoding.stops import StopScanner
from worker.encoding.tokenizer import IncrementalDecoder, Tokenizer
from worker.errors import InvalidParameter, InvalidRequest
from worker.request import FinishReason
from worker.server.answer import Answer
from worker.server.choice import Entry
from worker.server.delivery import answer, make_choices
from worker.server.generation import Serving
from worker.server.openai import (
    DEFAULT_COMPLETION_TOKENS,
    CompletionFields,
    check_prompt,
    sampling_params,
)

FILL_IN_THE_MIDDLE = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")


class CompletionReader:
    """The text and log-probabilities of one completion, piece by piece. `prompt`: what its text
    starts with when the caller wants an echo."""

    reasoning_tokens = 0

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: list[str],
        *,
        logprobs: bool,
        name_by_id: bool = False,
        prompt: str | None = None,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._name_by_id = name_by_id
        self._prompt = prompt
        self._prompt_token_ids = prompt_token_ids
        self._decoder = IncrementalDecoder(tokenizer)
        self._scanner = StopScanner(stops)
        self._with_logprobs = logprobs
        self._logprobs = _empty_logprobs()
        self._offset = 0
        self._told: list[Entry] = []

    @property
    def stopped(self) -> bool:
        return self._scanner.stopped

    def start(self, prompt_logprobs: list[TokenLogprob]) -> Entry | None:
        if self._prompt is None:
            return None
        if self._with_logprobs:
            self._list(self._prompt_token_ids[0], None)  # nothing came before it
            for token in prompt_logprobs:
                self._list(token.token_id, token)
        return self._entry(self._prompt, None)

    def push(self, token: TokenLogprob) -> Entry:
        if self._with_logprobs:
            self._list(token.token_id, token)
        return self._entry(self._scanner.push(self._decoder.push(token.token_id)), None)

    def finish(self, reason: FinishReason) -> Entry:
        rest = self._scanner.push(self._decoder.finish()) + self._scanner.finish()
        return self._entry(rest, reason)

    def silence(self) -> Entry:
        return self._entry("", None)

    def whole(self) -> Entry:
        return self._told[-1] | {
            "text": "".join(entry["text"] for entry in self._told),
            "logprobs": _merge_logprobs([entry["logprobs"] for entry in self._told]),
        }

    def replay(self, token_ids: Sequence[int]) -> int:
        if self._prompt is not None:
            self._entry(self._prompt, None)
            self._offset = sum(len(self._tokenizer.text(i)) for i in self._prompt_token_ids)
        for taken, token_id in enumerate(token_ids):
            if self.stopped:
                return taken
            self.push(TokenLogprob(token_id, 0.0))
        return len(token_ids)

    def _entry(self, text: str, reason: FinishReason | None) -> Entry:
        logprobs = None
        if self._with_logprobs:
            logprobs, self._logprobs = self._logprobs, _empty_logprobs()
        entry: Entry = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        self._told.append(entry)
        return entry

    def _list(self, token_id: int, token: TokenLogprob | None) -> None:
        text = self._tokenizer.text(token_id)
        entries = self._logprobs
        entries["tokens"].append(self._name(token_id))
        entries["text_offset"].append(self._offset)
        self._offset += len(text)
        if token is None or token.logprob is None:
            entries["token_logprobs"].append(None)
            entries["top_logprobs"].append(None)
        else:
            top = {self._name(i): _finite(logprob) for i, logprob in token.top}
            entries["token_logprobs"].append(_finite(token.logprob))
            entries["top_logprobs"].append(top)

    def _name(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._name_by_id else self._tokenizer.text(token_id)


def encode_prompt(
    tokenizer: Tokenizer, prompt: str | list[int], suffix: str | None = None
) -> list[int]:
    """Token ids of a completion's prompt; with `suffix`, of the request to fill the middle between
    the two. Slow for long text."""
    before = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    if suffix is None:
        return before
    begin, hole, end = map(tokenizer.control_id, FILL_IN_THE_MIDDLE)
    return [begin, *before, hole, *tokenizer.encode(suffix), end]


def answer_completion(
    serving: Serving, fields: CompletionFields, token_ids: list[int], name: str, arrived: float
) -> Answer:
    """The answer to a checked request, in logs `name`. Raises RequestError."""
    if fields.suffix is not None and fields.echo:
        raise InvalidRequest("suffix cannot be combined with echo", param="suffix")
    if fields.best_of not in (None, 1):
        raise InvalidRequest("best_of must be 1", param="best_of")
    if fields.max_tokens == 0 and not fields.echo:
        raise InvalidParameter("max_tokens must be at least 1 without echo", param="max_tokens")
    check_prompt(token_ids, fields, serving.limits)
    scores_prompt = fields.echo and fields.resume_token_ids is None
    sampling = sampling_params(
        fields,
        serving.limits,
        max_tokens=DEFAULT_COMPLETION_TOKENS if fields.max_tokens is None else fields.max_tokens,
        prompt_tokens=len(token_ids),
        logprobs=fields.logprobs,
        prompt_logprobs=fields.logprobs if scores_prompt else None,
    )
    attempt_id = uuid.uuid4().hex
    choices = make_choices(
        serving,
        fields,
        token_ids,
        sampling,
        arrived=arrived,
        attempt_id=attempt_id,
        reader=lambda: _reader(serving.tokenizer, fields, token_ids),
    )
    document = {
        "id": f"cmpl-{attempt_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": serving.limits.model,
    }
    return answer(serving, fields, choices, document, name=name, chunk_object="text_completion")


def _reader(
    tokenizer: Tokenizer, fields: CompletionFields, token_ids: list[int]
) -> CompletionReader:
    prompt = fields.prompt if isinstance(fields.prompt, str) else tokenizer.decode(token_ids)
    return CompletionReader(
        tokenizer,
        fields.stops,
        logprobs=fields.logprobs is not None,
        name_by_id=bool(fields.return_tokens_as_token_ids),
        prompt=prompt if fields.echo else None,
        prompt_token_ids=token_ids,
    )


def _merge_logprobs(parts: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """All parts in one; None when log-probabilities were not asked for."""
    merged = _empty_logprobs()
    for part in parts:
        if part is None:
            return None
        for name, values in part.items():
            merged[name] += values
    return merged


def _empty_logprobs() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def _finite(logprob: float) -> float:
    return max(logprob, MOST_UNLIKELY_LOGPROB)
