"""Request bodies of the wire, checked field by field, and what they mean to the engine."""

import hashlib
import re
import secrets
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from worker.errors import (
    ContextLengthExceeded,
    InvalidParameter,
    InvalidRequest,
    ModelNotFound,
    PromptExceedsLimit,
    RequestError,
)
from worker.request import SamplingParams

MAX_STOPS = 16
MAX_CHOICES = 16  # half of a forward's sequences by default: one request shall not take them all
MAX_OUTPUT_TOKENS = 393_216
MAX_PRIORITY = 1_000
MAX_DEADLINE_SECONDS = 86_400
DEFAULT_CHAT_TOKENS = 8_192
DEFAULT_THINKING_TOKENS = 65_536
DEFAULT_COMPLETION_TOKENS = 16

TokenId = Annotated[int, Meta(ge=0)]
StopString = Annotated[str, Meta(min_length=1)]
Logprobs = Annotated[int, Meta(ge=0, le=20)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
T = TypeVar("T")


class StreamOptions(msgspec.Struct):
    """`continuous_usage_stats` is accepted and always on."""

    include_usage: bool = False
    continuous_usage_stats: bool = True


class GenerationFields(msgspec.Struct, kw_only=True):
    """What chat and plain completions share. Unknown fields are ignored, as OpenAI does.

    Penalties are checked and have no effect, as at DeepSeek. `resume_token_ids`: output tokens that
    the caller has of this very request, from another worker. `return_token_ids` (vLLM's): tell with
    every piece the tokens that went into it.
    """

    model: str
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    max_prompt_tokens: Annotated[int, Meta(ge=1)] | None = None
    cache_salt: Annotated[str, Meta(max_length=512)] | None = None
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    fairness_key: Annotated[str, Meta(max_length=128)] | None = None
    deadline_seconds: Annotated[float, Meta(gt=0, le=MAX_DEADLINE_SECONDS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    resume_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_OUTPUT_TOKENS)] | None = None
    return_token_ids: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a last chunk with no choices carries the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def salt(self) -> bytes:
        # "surrogatepass": a lone surrogate is a caller's oddity, not an error in a salt.
        return (self.cache_salt or "").encode("utf-8", "surrogatepass")

    def deadline(self, arrived: float) -> float | None:
        """When to give up a request that arrived then; seconds on the same clock."""
        return None if self.deadline_seconds is None else arrived + self.deadline_seconds


class ChatFields(GenerationFields, kw_only=True):
    """The fields of a chat completion outside the prompt, which `worker.encoding.chat` reads."""

    messages: list[Any]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    reasoning_effort: str | None = None


class CompletionFields(GenerationFields, kw_only=True):
    """A plain completion. `prompt`: text, never control tokens; or token ids, taken as they are.

    `suffix`: what shall follow what is generated.
    `max_tokens` 0 with `echo` scores the prompt alone. `return_tokens_as_token_ids` (vLLM's) names
    tokens in log-probabilities `token_id:N`: different ids may share a text.
    """

    prompt: str | list[TokenId]
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)] | None = None
    echo: bool | None = None
    logprobs: Logprobs | None = None
    best_of: int | None = None
    suffix: str | None = None
    return_tokens_as_token_ids: bool | None = None


class TokenizeFields(msgspec.Struct):
    """What `/tokenize` reads of a completion."""

    prompt: str
    suffix: str | None = None


class Limits(msgspec.Struct, frozen=True):
    """What the served model can take."""

    model: str
    max_model_len: int
    vocab_size: int
    eos_token_id: int


def parse_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidRequest."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the body is not a JSON object")
    return document


def parse_fields(document: dict[str, Any], kind: type[T]) -> T:
    """Check every field. Raises InvalidRequest (wrong type, missing), InvalidParameter."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None


def query_number(text: str | None, name: str, default: int, least: int, most: int) -> int:
    """A number from a query string. Raises InvalidRequest, InvalidParameter."""
    if text is None:
        return default
    if not re.fullmatch("[0-9]{1,19}", text):
        raise InvalidRequest(f"{name} must be a whole number", param=name)
    if not least <= int(text) <= most:
        raise InvalidParameter(f"{name} must be from {least} to {most}", param=name)
    return int(text)


def check_common(fields: GenerationFields, limits: Limits) -> None:
    """Checks beyond single fields. Raises RequestError."""
    if fields.model != limits.model:
        raise ModelNotFound(
            f"The model {fields.model!r} is not served here; this worker serves {limits.model!r}.",
            param="model",
        )
    if fields.stream_options is not None and not fields.stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")


def check_prompt(token_ids: list[int], fields: GenerationFields, limits: Limits) -> None:
    """Checks on the tokenised prompt. Raises RequestError."""
    count = len(token_ids)
    if count == 0:
        raise InvalidRequest("the prompt is empty", param="prompt")
    if max(token_ids) >= limits.vocab_size:
        raise InvalidParameter(
            f"token ids must be below the vocabulary size {limits.vocab_size}", param="prompt"
        )
    if count >= limits.max_model_len:
        param = "messages" if isinstance(fields, ChatFields) else "prompt"
        raise ContextLengthExceeded(count, limits.max_model_len, param)
    if fields.max_prompt_tokens is not None and count > fields.max_prompt_tokens:
        raise PromptExceedsLimit(count, fields.max_prompt_tokens)


def check_resumption(fields: GenerationFields, sampling: SamplingParams, limits: Limits) -> None:
    """Checks on the tokens that a resumed request brings along. Raises RequestError."""
    token_ids = fields.resume_token_ids
    if token_ids is None:
        return
    if (fields.n or 1) > 1:
        raise InvalidRequest("only one choice can be resumed; n must be 1", param="n")
    if sampling.logprobs is not None and not fields.stream:
        raise InvalidRequest(
            "a resumed request has log-probabilities of its new tokens only, which needs "
            "stream: true",
            param="logprobs",
        )
    if max(token_ids, default=0) >= limits.vocab_size:
        raise InvalidParameter(
            f"token ids must be below the vocabulary size {limits.vocab_size}",
            param="resume_token_ids",
        )
    if len(token_ids) > sampling.max_tokens:
        raise InvalidParameter(
            f"{len(token_ids)} tokens are more than this request may have, {sampling.max_tokens}",
            param="resume_token_ids",
        )


def choice_seed(seed: int, index: int) -> int:
    """The seed of a request's choice; the first one's is the request's own."""
    if index == 0:
        return seed
    digest = hashlib.blake2b(seed.to_bytes(8) + index.to_bytes(8), digest_size=8).digest()
    return int.from_bytes(digest)


def sampling_params(
    fields: GenerationFields,
    limits: Limits,
    *,
    max_tokens: int,
    prompt_tokens: int,
    default_top_p: float = 1.0,
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """How the engine shall sample. An absent seed is drawn at random."""
    seed = secrets.randbits(63) if fields.seed is None else fields.seed % 2**64
    stop_ids = set(fields.stop_token_ids or [])
    if not fields.ignore_eos:
        stop_ids.add(limits.eos_token_id)
    return SamplingParams(
        max_tokens=min(max_tokens, limits.max_model_len - prompt_tokens),
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_p=default_top_p if fields.top_p is None else fields.top_p,
        top_k=max(fields.top_k or 0, 0),
        min_p=fields.min_p or 0.0,
        seed=seed,
        logit_bias=_logit_bias(fields.logit_bias or {}, limits.vocab_size),
        stop_token_ids=frozenset(stop_ids),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def usage(*, prompt: int, hit: int, completion: int, reasoning: int = 0) -> dict[str, Any]:
    """Cumulative usage in DeepSeek's and OpenAI's names; all counts in tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_cache_hit_tokens": hit,
        "prompt_cache_miss_tokens": prompt - hit,
        "prompt_tokens_details": {"cached_tokens": hit},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _logit_bias(raw: dict[str, float], vocab_size: int) -> dict[int, float]:
    bias: dict[int, float] = {}
    for key, value in raw.items():
        if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= vocab_size:
            raise InvalidParameter(
                f"logit_bias keys must be token ids below {vocab_size}", param="logit_bias"
            )
        bias[int(key)] = value
    return bias


def _field_error(message: str) -> RequestError:
    """msgspec's sentence, with the field's name. A wrong type is a malformed request; a right type
    with a wrong value is a parameter out of its domain."""
    text, _, path = message.partition(" - at `$")
    param = path.strip("`").lstrip(".") or None
    malformed = ", got `" in text or "missing required field" in text
    return (InvalidRequest if malformed else InvalidParameter)(
        f"{param}: {text}" if param else text, param=param
    )
