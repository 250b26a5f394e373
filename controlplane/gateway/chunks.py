"""Chat completion chunks as engines stream them: usage out, the rest untouched; pure.

Called by `exchange`, which meters, and by `chat` and `merge`, which shape what the client sees.
"""

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


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_USAGE = msgspec.json.Decoder(_WireUsage | None)
_CHOICES = msgspec.json.Decoder(list[_Choice])
_ENCODER = msgspec.json.Encoder()


class MalformedChunk(Exception):
    """An engine sent an event that is no chat completion chunk."""


class Chunk(msgspec.Struct):
    """One chunk: its fields but for `usage`, which is decoded, and `finish_reason`, looked up."""

    fields: dict[str, msgspec.Raw]
    usage: TokenUsage | None
    finish_reason: str | None
    has_choices: bool
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
        usage = _parse_usage(fields.pop("usage", None))
        choices = _CHOICES.decode(fields["choices"]) if "choices" in fields else []
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedChunk(str(error)) from error
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    return Chunk(
        fields=fields,
        usage=usage,
        finish_reason=reasons[0] if reasons else None,
        has_choices=bool(choices),
        is_error="error" in fields,
    )


def _parse_usage(raw: msgspec.Raw | None) -> TokenUsage | None:
    wire = _USAGE.decode(raw) if raw is not None else None
    if wire is None:
        return None
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
