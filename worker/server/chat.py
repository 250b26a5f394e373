"""POST /v1/chat/completions."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from worker.batch import TokenLogprob
from worker.encoding.chat import ChatPrompt
from worker.encoding.chat_stream import ChatStream
from worker.errors import InvalidRequest
from worker.request import FinishReason
from worker.server.answer import Answer
from worker.server.choice import Entry
from worker.server.delivery import answer, make_choices
from worker.server.generation import Serving
from worker.server.openai import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_THINKING_TOKENS,
    ChatFields,
    check_prompt,
    sampling_params,
)

MARK_STEP = 1 / 64  # makes token numbers into log-probabilities and back, without loss


class ChatReader:
    """One choice of a chat completion. Every token makes at most one entry, so that whoever has
    seen an entry has seen all that its tokens brought. `streams` makes parsers of the answer."""

    def __init__(self, streams: Callable[[], ChatStream], *, logprobs: bool) -> None:
        self._streams = streams
        self._stream = streams()
        self._logprobs = logprobs
        self._end: list[Entry] = []

    @property
    def stopped(self) -> bool:
        return self._stream.stopped

    @property
    def reasoning_tokens(self) -> int:
        return self._stream.reasoning_tokens

    def start(self, prompt_logprobs: list[TokenLogprob]) -> Entry:
        return _merge(_entries(self._stream.start()))

    def push(self, token: TokenLogprob) -> Entry | None:
        entries = _entries(self._stream.push(token))
        if self.stopped:
            entries, self._end = entries[:-1], entries[-1:]
        return _merge(entries) if entries else None

    def finish(self, reason: FinishReason) -> Entry:
        return _merge(self._end or _entries(self._stream.finish(reason)))

    def silence(self) -> Entry:
        return {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}

    def whole(self) -> Entry:
        choice: Entry = self._stream.response()["choices"][0]
        return choice

    def replay(self, token_ids: Sequence[int]) -> int:
        listed = self._listed(token_ids) if self._logprobs else len(token_ids)
        self._stream.start()
        for taken, token_id in enumerate(token_ids[:listed]):
            if self.stopped:
                return taken
            self.push(TokenLogprob(token_id, 0.0))
        return listed

    def _listed(self, token_ids: Sequence[int]) -> int:
        """How far the client has been told log-probabilities: those of text that is held back come
        with it. Only a parse with marked tokens tells, for markup is never listed."""
        probe = ChatReader(self._streams, logprobs=False)
        probe.start([])
        listed = 0
        for number, token_id in enumerate(token_ids, start=1):
            entry = probe.push(TokenLogprob(token_id, -number * MARK_STEP))
            if probe.stopped:
                return number
            for tokens in ((entry and entry["logprobs"]) or {}).values():
                marks = [round(-token["logprob"] / MARK_STEP) for token in tokens or []]
                listed = max([listed, *marks])
        return listed


def answer_chat(
    serving: Serving, fields: ChatFields, prompt: ChatPrompt, name: str, arrived: float
) -> Answer:
    """The answer to a checked request, in logs `name`, that `arrived` then (monotonic seconds).
    Raises RequestError."""
    if fields.ignore_eos and prompt.grammar is not None:
        raise InvalidRequest(
            "ignore_eos cannot be combined with response_format or strict tools", param="ignore_eos"
        )
    check_prompt(prompt.token_ids, fields, serving.limits)
    default = DEFAULT_THINKING_TOKENS if prompt.thinking else DEFAULT_CHAT_TOKENS
    sampling = sampling_params(
        fields,
        serving.limits,
        max_tokens=fields.max_completion_tokens or fields.max_tokens or default,
        prompt_tokens=len(prompt.token_ids),
        default_top_p=prompt.top_p,
        logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
    )
    attempt_id = uuid.uuid4().hex
    answer_id, model = f"chatcmpl-{attempt_id}", serving.limits.model
    choices = make_choices(
        serving,
        fields,
        prompt.token_ids,
        sampling,
        arrived=arrived,
        attempt_id=attempt_id,
        reader=lambda: ChatReader(
            lambda: serving.chat.stream(prompt, response_id=answer_id, model=model),
            logprobs=bool(fields.logprobs),
        ),
        grammar=prompt.grammar,
    )
    document = {
        "id": answer_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }
    return answer(
        serving, fields, choices, document, name=name, chunk_object="chat.completion.chunk"
    )


def _entries(chunks: list[dict[str, Any]]) -> list[Entry]:
    return [chunk["choices"][0] for chunk in chunks]


def _merge(entries: list[Entry]) -> Entry:
    """Entries that came at once as one."""
    merged = entries[0]
    for entry in entries[1:]:
        merged = {
            **entry,
            "delta": _joined(merged["delta"], entry["delta"]),
            "logprobs": _joined(merged["logprobs"] or {}, entry["logprobs"] or {}) or None,
        }
    return merged


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two deltas, log-probabilities or parts of one tool call as one: texts and lists go on."""
    joined = dict(first)
    for name, value in second.items():
        old = joined.get(name)
        if old is None or value is None:
            joined[name] = value if old is None else old
        elif name == "tool_calls":
            joined[name] = _joined_calls(old + value)
        elif isinstance(value, dict):
            joined[name] = _joined(old, value)
        elif name != "index":
            joined[name] = old + value
    return joined


def _joined_calls(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One part per call."""
    calls: dict[int, dict[str, Any]] = {}
    for part in parts:
        index = part["index"]
        calls[index] = _joined(calls[index], part) if index in calls else part
    return list(calls.values())
