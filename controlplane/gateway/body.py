"""A request's body: what the gateway must know of it, and what an engine gets instead; pure.

Called by `serving`. Fields are kept as raw JSON; only those that decide money, routing or the
answer's form are decoded. The engine validates the rest, prompt included.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from array import array
from itertools import accumulate
from typing import TypeVar

import msgspec

from controlplane.errors import InvalidRequest, UnprocessableRequest
from controlplane.gateway.schemas import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    StreamOptions,
    Thinking,
    effort_of,
)

MAX_DEPTH = 64
MAX_TOKENS_LIMIT = 393_216
DEFAULT_MAX_TOKENS = {"completion": 4_096, "chat": 8_192, "thinking": 65_536, "max": 131_072}
# What a template adds around the client's text, at most.
TEMPLATE_TOKENS = 512

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()
_THINKING = {
    thinks: msgspec.Raw(_ENCODER.encode({"type": "enabled" if thinks else "disabled"}))
    for thinks in (True, False)
}
_NULL = msgspec.Raw(b"null")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKET_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_USER_ID = re.compile(r"[a-zA-Z0-9\-_]{1,512}")

T = TypeVar("T")


class GenerationRequest(msgspec.Struct, frozen=True):
    """A request as the gateway sees it.

    `max_tokens_given` tells an explicit limit, never shrunk, from a default, which may be.
    `fields` are those that an engine gets; `prompt_field` is the one to blame for a long prompt.
    """

    model: str
    prompt_field: str
    stream: bool
    include_usage: bool
    thinking: bool
    max_tokens: int
    max_tokens_given: bool
    prompt_guess_tokens: int
    user_id: str
    fields: dict[str, msgspec.Raw]


def parse_chat(body: bytes) -> GenerationRequest:
    """Return the chat request in `body`.

    Raises:
        InvalidRequest: not JSON, not an object, nested too deeply, a limit out of range.
        UnprocessableRequest: a field missing, of the wrong type or out of its domain.
    """
    fields = _parse_object(body)
    _required(fields, "messages", list[msgspec.Raw])
    effort = effort_of(_field(fields, "reasoning_effort", str))
    thinking = _field(fields, "thinking", Thinking)
    thinks = effort != "none" and (thinking or Thinking()).type != "disabled"
    if thinking is None and effort is None:
        # The format has no thinking before a forced call; clients that force one seldom say so.
        thinks = not _forces_a_call(fields)
    default = "chat" if not thinks else "max" if effort == "max" else "thinking"
    forwarded = {name: raw for name, raw in fields.items() if name in CHAT_FIELDS}
    forwarded["thinking"] = _THINKING[thinks]
    return _request(fields, forwarded, ("messages", "tools"), thinking=thinks, default=default)


def parse_completion(body: bytes) -> GenerationRequest:
    """Return the request in `body` for a plain text completion, or one that fills in the middle
    between `prompt` and `suffix`; raises as `parse_chat` does."""
    fields = _parse_object(body)
    # Text only: token ids could be control tokens, with which a client would leave its own text.
    if not _field(fields, "suffix", str) or _field(fields, "prompt", str) is None:
        _required(fields, "prompt", str)  # a gap may be at the very beginning
    forwarded = {name: raw for name, raw in fields.items() if name in COMPLETION_FIELDS}
    return _request(fields, forwarded, ("prompt", "suffix"), thinking=False, default="completion")


def _request(
    fields: dict[str, msgspec.Raw],
    forwarded: dict[str, msgspec.Raw],
    prompt_fields: tuple[str, ...],
    *,
    thinking: bool,
    default: str,
) -> GenerationRequest:
    """Return what all requests have in common."""
    if _field(fields, "n", int) not in (None, 1):
        raise UnprocessableRequest("only n = 1 is served", param="n")
    model = _required(fields, "model", str)
    stream = bool(_field(fields, "stream", bool))
    options = _field(fields, "stream_options", StreamOptions) or StreamOptions()
    max_tokens = _max_tokens(fields)
    return GenerationRequest(
        model=model,
        prompt_field=prompt_fields[0],
        stream=stream,
        include_usage=stream and bool(options.include_usage),
        thinking=thinking,
        max_tokens=max_tokens or DEFAULT_MAX_TOKENS[default],
        max_tokens_given=max_tokens is not None,
        prompt_guess_tokens=_guess_prompt_tokens(fields, prompt_fields),
        user_id=_user_id(fields),
        fields=forwarded,
    )


def _parse_object(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        fields = _DECODER.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels")
    return fields


def _depth(body: bytes) -> int:
    """Return the deepest nesting of well-formed JSON in linear time, all of it in C."""
    brackets = _STRING.sub(b"", body).translate(_BRACKET_STEPS, _NOT_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)


def _field(fields: dict[str, msgspec.Raw], name: str, kind: type[T]) -> T | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind | None)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnprocessableRequest(f"{name!r}: {error}", param=name) from None


def _required(fields: dict[str, msgspec.Raw], name: str, kind: type[T]) -> T:
    value = _field(fields, name, kind)
    if not value:
        raise UnprocessableRequest(f"{name!r} is required and must not be empty", param=name)
    return value


def _forces_a_call(fields: dict[str, msgspec.Raw]) -> bool:
    """Whether the answer must be a tool call. The engine judges the field's form."""
    choice = msgspec.json.decode(fields.get("tool_choice", _NULL))
    return choice == "required" or isinstance(choice, dict)


def _max_tokens(fields: dict[str, msgspec.Raw]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = _field(fields, name, int)
        if value is None:
            continue
        if not 1 <= value <= MAX_TOKENS_LIMIT:
            message = f"invalid {name}: the valid range is [1, {MAX_TOKENS_LIMIT}]"
            raise InvalidRequest(message, param=name)
        return value
    return None


def _user_id(fields: dict[str, msgspec.Raw]) -> str:
    value = _field(fields, "user_id", str) or ""
    if value and not _USER_ID.fullmatch(value):
        message = "'user_id' must be 1 to 512 characters of a-z, A-Z, 0-9, '-' and '_'"
        raise InvalidRequest(message, param="user_id")
    return value


def _guess_prompt_tokens(fields: dict[str, msgspec.Raw], prompt_fields: tuple[str, ...]) -> int:
    """Guess from bytes. No upper bound: the engine counts, and refuses what the hold leaves out."""
    text = sum(len(memoryview(fields[name])) for name in prompt_fields if name in fields)
    return text + TEMPLATE_TOKENS


def cache_salt(pepper: bytes, tenant_id: uuid.UUID, user_id: str) -> str:
    """Return the salt under which a tenant's (and its user's) prompts share cached prefixes."""
    message = b"cache-salt\0" + tenant_id.bytes + user_id.encode()
    return hmac.new(pepper, message, hashlib.sha256).hexdigest()


def fairness_key(pepper: bytes, tenant_id: uuid.UUID) -> str:
    """Return the tag by which engines share themselves out among tenants without knowing them."""
    return hmac.new(pepper, b"fairness-key\0" + tenant_id.bytes, hashlib.sha256).hexdigest()


def named(request: GenerationRequest, model: str) -> GenerationRequest:
    """Return the request as if it had asked for `model`; the engine knows no other name."""
    if request.model == model:
        return request
    fields = {**request.fields, "model": msgspec.Raw(_ENCODER.encode(model))}
    return msgspec.structs.replace(request, model=model, fields=fields)


def rewrite(
    request: GenerationRequest, *, prompt_tokens: int, max_tokens: int, salt: str, fairness: str
) -> bytes:
    """Return the body for the engine: only known fields, ours in place of the client's.

    Args:
        request: the parsed request.
        prompt_tokens: the longest prompt the hold covers.
        max_tokens: the longest completion the hold covers.
        salt: see `cache_salt`.
        fairness: see `fairness_key`.
    """
    fields: dict[str, object] = {**request.fields}
    fields["max_tokens"] = max_tokens
    fields["max_prompt_tokens"] = prompt_tokens
    fields["cache_salt"] = salt
    fields["fairness_key"] = fairness
    # With a seed and the ids of what was said, another engine can go on with the answer.
    fields["return_token_ids"] = True
    if fields.get("seed", _NULL) == _NULL:
        fields["seed"] = secrets.randbits(63)
    fields["stream"] = True
    fields["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return _ENCODER.encode(fields)
