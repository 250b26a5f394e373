"""Streamed chunks merged into one chat completion; pure. Called by `chat` when nobody streams.

Engines are always asked to stream, so that a buffered request is metered, aborted and billed
exactly as a streamed one.
"""

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


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    logprobs: dict[str, list[msgspec.Raw] | None] | None = None
    finish_reason: str | None = None


class _ToolCall(msgspec.Struct):
    id: str = ""
    type: str = "function"
    name: str = ""
    arguments: list[str] = msgspec.field(default_factory=list)


_CHOICES = msgspec.json.Decoder(list[_Choice])
_HEAD_FIELDS = ("id", "created", "model", "system_fingerprint")


class Merger:
    """Adds up the chunks of one choice."""

    def __init__(self) -> None:
        self._head: dict[str, msgspec.Raw] = {}
        self._content: list[str] | None = None
        self._reasoning: list[str] | None = None
        self._tool_calls: dict[int, _ToolCall] = {}
        self._logprobs: dict[str, list[msgspec.Raw]] | None = None
        self._finish_reason: str | None = None

    def add(self, chunk: Chunk) -> None:
        """Add one chunk.

        Raises:
            MalformedChunk: a delta of another shape.
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
        self._add_delta(choice.delta)
        self._finish_reason = choice.finish_reason or self._finish_reason
        if choice.logprobs is not None:
            self._logprobs = self._logprobs or {}
            for name, entries in choice.logprobs.items():
                self._logprobs.setdefault(name, []).extend(entries or [])

    def _add_delta(self, delta: _Delta) -> None:
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

    def result(self, usage: TokenUsage) -> bytes:
        """Return the JSON of the whole completion."""
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
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs,
            "finish_reason": self._finish_reason,
        }
        return msgspec.json.encode(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [choice],
                "usage": usage_on_the_wire(usage),
            }
        )
