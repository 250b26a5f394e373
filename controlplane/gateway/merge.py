"""Streamed chunks merged into one completion; pure. Called by `serving` when nobody streams.

Engines are always asked to stream, so that a buffered request is metered, aborted and billed
exactly as a streamed one.
"""

from typing import Protocol

import msgspec

from controlplane.gateway.chunks import Chunk, MalformedChunk, usage_on_the_wire
from controlplane.usage.records import TokenUsage


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: _FunctionDelta = msgspec.field(default_factory=_FunctionDelta)


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCallDelta] | None = None


class Choice(msgspec.Struct):
    """One choice of a chunk: a chat's `delta`, or `text`."""

    delta: _Delta = msgspec.field(default_factory=_Delta)
    text: str = ""
    logprobs: dict[str, list[msgspec.Raw] | None] | None = None
    finish_reason: str | None = None


class _ToolCall(msgspec.Struct):
    id: str = ""
    type: str = "function"
    name: str = ""
    arguments: list[str] = msgspec.field(default_factory=list)


_CHOICES = msgspec.json.Decoder(list[Choice])
_HEAD_FIELDS = ("id", "created", "model", "system_fingerprint")


class Said(Protocol):
    """What an answer consists of, beside what all have. `kind` is the whole's `object`."""

    kind: str

    def add(self, choice: Choice) -> None:
        """Add one chunk's choice."""

    def merged(self) -> dict[str, object]:
        """Return the fields of the whole choice."""


class Text:
    """The text of a plain completion."""

    kind = "text_completion"

    def __init__(self) -> None:
        self._text: list[str] = []

    def add(self, choice: Choice) -> None:
        """Add one chunk's choice."""
        self._text.append(choice.text)

    def merged(self) -> dict[str, object]:
        """Return the fields of the whole choice."""
        return {"text": "".join(self._text)}


class Message:
    """The message of a chat completion."""

    kind = "chat.completion"

    def __init__(self) -> None:
        self._content: list[str] | None = None
        self._reasoning: list[str] | None = None
        self._tool_calls: dict[int, _ToolCall] = {}

    def add(self, choice: Choice) -> None:
        """Add one chunk's choice."""
        delta = choice.delta
        # An empty string is kept: clients must send `reasoning_content` back as they got it.
        if delta.content is not None:
            self._content = self._content or []
            self._content.append(delta.content)
        if delta.reasoning_content is not None:
            self._reasoning = self._reasoning or []
            self._reasoning.append(delta.reasoning_content)
        for part in delta.tool_calls or ():
            call = self._tool_calls.setdefault(part.index, _ToolCall())
            call.id = part.id or call.id
            call.type = part.type or call.type
            call.name += part.function.name or ""
            call.arguments.append(part.function.arguments or "")

    def merged(self) -> dict[str, object]:
        """Return the fields of the whole choice."""
        message: dict[str, object] = {
            "role": "assistant",
            "content": None if self._content is None else "".join(self._content),
        }
        if self._reasoning is not None:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._tool_calls:
            message["tool_calls"] = [
                {
                    "index": index,
                    "id": call.id,
                    "type": call.type,
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for index, call in sorted(self._tool_calls.items())
            ]
        return {"message": message}


class Merger:
    """Adds up the chunks of one choice."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._head: dict[str, msgspec.Raw] = {}
        self._logprobs: dict[str, list[msgspec.Raw]] | None = None
        self._finish_reason: str | None = None

    def add(self, chunk: Chunk) -> None:
        """Add one chunk.

        Raises:
            MalformedChunk: a choice of another shape.
        """
        for field in _HEAD_FIELDS:
            if field in chunk.fields:
                self._head[field] = chunk.fields[field]
        if not chunk.has_choices:
            return
        try:
            (choice,) = _CHOICES.decode(chunk.fields["choices"])
        except (msgspec.DecodeError, ValueError) as error:
            raise MalformedChunk(str(error)) from error
        self._said.add(choice)
        self._finish_reason = choice.finish_reason or self._finish_reason
        if choice.logprobs is not None:
            self._logprobs = self._logprobs or {}
            for name, entries in choice.logprobs.items():
                self._logprobs.setdefault(name, []).extend(entries or [])

    def result(self, usage: TokenUsage) -> bytes:
        """Return the JSON of the whole completion."""
        choice = {
            "index": 0,
            **self._said.merged(),
            "logprobs": self._logprobs,
            "finish_reason": self._finish_reason,
        }
        return msgspec.json.encode(
            {
                **self._head,
                "object": self._said.kind,
                "choices": [choice],
                "usage": usage_on_the_wire(usage),
            }
        )
