"""Chunks as engines stream them: usage and token ids out, the rest untouched; pure.

Called by `generation`, which meters, and by `serving` and `merge`, which shape what a client sees.
"""

from typing import Annotated

import msgspec

from controlplane.usage.records import TokenUsage


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _WireUsage(msgspec.Struct):
    """Usage in DeepSeek's names, or OpenAI's where an engine knows only those."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_cache_hit_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    resumed_tokens: int = 0


_NULL = msgspec.Raw(b"null")
_NOTHING_SAID = (msgspec.Raw(b"{}"), msgspec.Raw(b'""'))
_Choices = list[dict[str, msgspec.Raw]]
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_USAGE = msgspec.json.Decoder(_WireUsage | None)
_CHOICES = msgspec.json.Decoder(_Choices)
_REASON = msgspec.json.Decoder(str)
_IDS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, lt=2**32)]] | None)
_ENCODER = msgspec.json.Encoder()


class MalformedChunk(Exception):
    """An engine sent an event that is no chat completion chunk."""


class Chunk(msgspec.Struct):
    """One chunk: its fields but for usage and token ids, which are decoded.

    `token_ids` is what its choice says, None where the engine does not tell; a chunk that tells
    nothing else is silent. `resumed_tokens` is how many the engine was given of an answer that
    another had begun.
    """

    fields: dict[str, msgspec.Raw]
    usage: TokenUsage | None
    finish_reason: str | None
    token_ids: list[int] | None
    resumed_tokens: int
    has_choices: bool
    is_silent: bool
    is_error: bool

    def encode(self, usage: TokenUsage | None = None) -> bytes:
        """Return the chunk's JSON, with `usage` in it only if given."""
        if usage is None:
            return _ENCODER.encode(self.fields)
        return _ENCODER.encode({**self.fields, "usage": usage_on_the_wire(usage)})

    def encode_usage_alone(self, usage: TokenUsage) -> bytes:
        """Return OpenAI's closing chunk: no choices, only usage."""
        fields = {key: self.fields[key] for key in self.fields if key != "choices"}
        return _ENCODER.encode({**fields, "choices": [], "usage": usage_on_the_wire(usage)})


def parse_chunk(data: bytes) -> Chunk:
    """Return the chunk in an event's data.

    Raises:
        MalformedChunk: not an object, or `choices` or `usage` of another shape.
    """
    try:
        fields = _FIELDS.decode(data)
        raw_usage = fields.pop("usage", None)
        wire = _USAGE.decode(raw_usage) if raw_usage is not None else None
        choices = _CHOICES.decode(fields["choices"]) if "choices" in fields else []
        finish_reason = _finish_reason(choices)
        token_ids = _take_token_ids(fields, choices)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedChunk(str(error)) from error
    return Chunk(
        fields=fields,
        usage=None if wire is None else _token_usage(wire),
        finish_reason=finish_reason,
        token_ids=token_ids,
        resumed_tokens=0 if wire is None else wire.resumed_tokens,
        has_choices=bool(choices),
        is_silent=token_ids is not None and finish_reason is None and _says_nothing(choices[0]),
        is_error="error" in fields,
    )


def _finish_reason(choices: _Choices) -> str | None:
    for choice in choices:
        raw = choice.get("finish_reason", _NULL)
        if raw != _NULL and (reason := _REASON.decode(raw)):
            return reason
    return None


def _take_token_ids(fields: dict[str, msgspec.Raw], choices: _Choices) -> list[int] | None:
    """Remove all token ids; return those that the one choice says."""
    fields.pop("prompt_token_ids", None)
    told = [choice.pop("token_ids") for choice in choices if "token_ids" in choice]
    if not told:
        return None
    for choice in choices:
        choice.pop("prompt_token_ids", None)
    fields["choices"] = msgspec.Raw(_ENCODER.encode(choices))
    return _IDS.decode(told[0]) if len(choices) == 1 else None


def _says_nothing(choice: dict[str, msgspec.Raw]) -> bool:
    said = choice.get("delta", choice.get("text"))
    return said in _NOTHING_SAID and choice.get("logprobs", _NULL) == _NULL


def _token_usage(wire: _WireUsage) -> TokenUsage:
    prompt = max(wire.prompt_tokens, 0)
    output = max(wire.completion_tokens, 0)
    hit = wire.prompt_cache_hit_tokens
    if hit is None and wire.prompt_tokens_details is not None:
        hit = wire.prompt_tokens_details.cached_tokens
    details = wire.completion_tokens_details
    reasoning = details.reasoning_tokens if details is not None else None
    # An engine that claims more hits than prompt must not make the bill negative.
    hit = min(max(hit or 0, 0), prompt)
    return TokenUsage(hit, prompt - hit, output, min(max(reasoning or 0, 0), output))


def usage_on_the_wire(usage: TokenUsage) -> dict[str, object]:
    """Return `usage` as clients of DeepSeek and of OpenAI read it."""
    prompt = usage.hit_tokens + usage.miss_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
        "prompt_cache_hit_tokens": usage.hit_tokens,
        "prompt_cache_miss_tokens": usage.miss_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.hit_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
