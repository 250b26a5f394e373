"""What an engine's error means to a request: as a status, or as an event of a stream; pure.

Called by `dispatch` and `generation`.
"""

import msgspec

from controlplane.errors import (
    ContextLengthExceeded,
    ControlPlaneError,
    InvalidRequest,
    Unavailable,
    UnprocessableRequest,
)

# The engine's fault and not the request's: another may do better.
RETRYABLE_CODES = frozenset(
    {"starting", "overloaded", "shutting_down", "engine_failed", "journal_unavailable"}
)


class PromptExceedsLimit(Exception):
    """The prompt is longer than the hold covers; nothing was generated."""

    def __init__(self, prompt_tokens: int) -> None:
        super().__init__(prompt_tokens)
        self.prompt_tokens = prompt_tokens


class TryAnother(Exception):
    """This attempt came to nothing; another may not."""


class EngineError(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: str | None = None
    prompt_tokens: int | None = None
    max_model_len: int | None = None


class _EngineErrorBody(msgspec.Struct):
    error: EngineError


_BODY = msgspec.json.Decoder(_EngineErrorBody)


def parse_error(content: bytes) -> EngineError:
    """Return the error in a body, or in an event's data; an empty one if it has another shape."""
    try:
        return _BODY.decode(content).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return EngineError()


def classify(status: int, error: EngineError) -> Exception:
    """Return the exception that an engine's error stands for."""
    # 404: the registry sent us to an engine that serves another model by now; 401: to one that was
    # started with another token.
    if status in (401, 404, 429, 503):
        return TryAnother()
    if status == 409 and error.prompt_tokens is not None:
        return PromptExceedsLimit(error.prompt_tokens)
    if error.code == "context_length_exceeded":
        if error.prompt_tokens is not None and error.max_model_len is not None:
            lengths = (error.prompt_tokens, error.max_model_len)
            return context_length_exceeded(*lengths, param=error.param)
        return ContextLengthExceeded(error.message)
    known: dict[int, type[ControlPlaneError]] = {400: InvalidRequest, 422: UnprocessableRequest}
    if status in known and error.message:
        return known[status](error.message, code=error.code, param=error.param)
    return Unavailable("the engine failed", code="engine_failed")


def context_length_exceeded(
    prompt_tokens: int, max_model_len: int, *, param: str | None
) -> ContextLengthExceeded:
    """Return the error that tells both lengths."""
    return ContextLengthExceeded(
        f"This model's maximum context length is {max_model_len} tokens, but the prompt has "
        f"{prompt_tokens} tokens and leaves no room for an answer.",
        param=param,
    )
