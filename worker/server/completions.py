"""POST /v1/completions: plain text or token ids in, text out."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from worker.batch import TokenLogprob
from worker.encoding.chat import MOST_UNLIKELY_LOGPROB
from worker.encoding.stops import StopScanner
from worker.encoding.tokenizer import IncrementalDecoder, Tokenizer
from worker.errors import InvalidParameter, InvalidRequest
from worker.request import FinishReason, Request
from worker.server.answer import Answer, EventStream
from worker.server.generation import Generation, Serving, generation
from worker.server.openai import (
    DEFAULT_COMPLETION_TOKENS,
    CompletionFields,
    check_prompt,
    sampling_params,
)


class CompletionText:
    """The text and log-probabilities of one completion, piece by piece. Starts with the prompt
    when `echo` is given."""

    def __init__(
        self, tokenizer: Tokenizer, stops: list[str], *, logprobs: bool, name_by_id: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._name_by_id = name_by_id
        self._decoder = IncrementalDecoder(tokenizer)
        self._scanner = StopScanner(stops)
        self._with_logprobs = logprobs
        self._logprobs = _empty_logprobs()
        self._offset = 0

    @property
    def stopped(self) -> bool:
        """A stop string has been found."""
        return self._scanner.stopped

    def prompt_text(self, prompt: str | list[int]) -> str:
        """The prompt as the completion repeats it."""
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)

    def echo(self, prompt_token_ids: list[int], logprobs: list[TokenLogprob]) -> None:
        """List the prompt's tokens; the first one has nothing to be predicted from."""
        if self._with_logprobs:
            self._list(prompt_token_ids[0], None)
            for token in logprobs:
                self._list(token.token_id, token)

    def push(self, token: TokenLogprob) -> str:
        """The text that is certain with this token."""
        if self._with_logprobs:
            self._list(token.token_id, token)
        return self._scanner.push(self._decoder.push(token.token_id))

    def finish(self) -> str:
        """What was held back."""
        return self._scanner.push(self._decoder.finish()) + self._scanner.finish()

    def take_logprobs(self) -> dict[str, Any] | None:
        """Log-probabilities of the tokens since the last call; None when not asked for."""
        if not self._with_logprobs:
            return None
        taken, self._logprobs = self._logprobs, _empty_logprobs()
        return taken

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


def encode_prompt(tokenizer: Tokenizer, prompt: str | list[int]) -> list[int]:
    """Token ids of a completion's prompt. Slow for long text."""
    if isinstance(prompt, list):
        return prompt
    try:
        return tokenizer.encode(prompt)
    except UnicodeEncodeError:
        raise InvalidRequest("prompt is not valid Unicode", param="prompt") from None


def answer_completion(
    serving: Serving, fields: CompletionFields, token_ids: list[int], name: str, arrived: float
) -> Answer:
    """The answer to a checked request, in logs `name`, that `arrived` then (monotonic seconds).
    Raises RequestError."""
    request = _engine_request(serving, fields, token_ids, arrived)
    text = CompletionText(
        serving.tokenizer,
        fields.stops,
        logprobs=fields.logprobs is not None,
        name_by_id=bool(fields.return_tokens_as_token_ids),
    )
    document = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": serving.limits.model,
    }

    async def run(events: EventStream) -> None:
        keep_alive = events if fields.stream else None
        with generation(serving, request, name=name, keep_alive=keep_alive) as running:
            pieces = _pieces(running, request, fields, text)
            if fields.stream:
                await _streamed(pieces, running, document, events, fields.include_usage)
            else:
                await _whole(pieces, running, document, events)

    return Answer(run, stream=bool(fields.stream))


def _engine_request(
    serving: Serving, fields: CompletionFields, token_ids: list[int], arrived: float
) -> Request:
    if fields.suffix is not None:
        raise InvalidRequest("suffix is not supported", param="suffix")
    if fields.best_of not in (None, 1):
        raise InvalidRequest("best_of must be 1", param="best_of")
    if fields.max_tokens == 0 and not fields.echo:
        raise InvalidParameter("max_tokens must be at least 1 without echo", param="max_tokens")
    check_prompt(token_ids, fields, serving.limits)
    serving.client.check_available()
    sampling = sampling_params(
        fields,
        serving.limits,
        max_tokens=DEFAULT_COMPLETION_TOKENS if fields.max_tokens is None else fields.max_tokens,
        prompt_tokens=len(token_ids),
        logprobs=fields.logprobs,
        prompt_logprobs=fields.logprobs if fields.echo else None,
    )
    return Request(
        uuid.uuid4().hex,
        token_ids,
        sampling,
        cache_salt=fields.salt,
        priority=fields.priority or 0,
        fairness_key=fields.fairness_key or "",
        deadline=fields.deadline(arrived),
    )


async def _pieces(
    running: Generation, request: Request, fields: CompletionFields, text: CompletionText
) -> AsyncIterator[dict[str, Any]]:
    """The completion as `choices` entries, in order; the last one has a finish reason."""
    prompt_logprobs: list[TokenLogprob] = []
    echoed = False
    while running.finish_reason is None and not text.stopped:
        progress = await running.next()
        prompt_logprobs += progress.prompt_logprobs
        if progress.token is None and progress.finish_reason is None:
            continue
        if fields.echo and not echoed:
            text.echo(request.prompt_token_ids, prompt_logprobs)
            yield _choice(text.prompt_text(fields.prompt), text, None)
            echoed = True
        # A stop token ends the text and is counted, but is no part of it.
        if progress.token is not None and progress.finish_reason is not FinishReason.STOP:
            yield _choice(text.push(progress.token), text, None)
    rest = "" if text.stopped else text.finish()
    yield _choice(rest, text, running.finish_reason or FinishReason.STOP)


async def _streamed(
    pieces: AsyncIterator[dict[str, Any]],
    running: Generation,
    document: dict[str, Any],
    events: EventStream,
    include_usage: bool,
) -> None:
    async for choice in pieces:
        await events.event({**document, "choices": [choice], "usage": running.usage()})
    if include_usage:
        await events.event({**document, "choices": [], "usage": running.usage()})
    await events.done()


async def _whole(
    pieces: AsyncIterator[dict[str, Any]],
    running: Generation,
    document: dict[str, Any],
    events: EventStream,
) -> None:
    choices = [choice async for choice in pieces]
    merged = choices[-1] | {
        "text": "".join(choice["text"] for choice in choices),
        "logprobs": _merge_logprobs([choice["logprobs"] for choice in choices]),
    }
    await events.document({**document, "choices": [merged], "usage": running.usage()})


def _choice(text: str, source: CompletionText, reason: FinishReason | None) -> dict[str, Any]:
    return {
        "index": 0,
        "text": text,
        "logprobs": source.take_logprobs(),
        "finish_reason": reason,
    }


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
