"""Every exception the worker raises on purpose. Raised at all floors, caught in entry points.

WorkerError
├── ConfigError          config.json or an engine setting is unusable
│   └── UnsupportedModelError  a model this worker does not implement
├── CheckpointError      the weights on disk are not what config.json promises
├── WeightsError         weights cannot be fetched, or are not those that were asked for
├── EngineCrashed        no request can be served any more
├── PeerLost             another rank has died or does not answer
└── RequestError         one request cannot be served; many kinds, each with its HTTP status
"""

from typing import ClassVar

MOST_MESSAGE_CHARACTERS = 1_000


class WorkerError(Exception):
    """Root of the tree; its text is one sentence for the operator, free of prompts and keys."""


class ConfigError(WorkerError):
    """config.json or an engine setting is missing, malformed or out of its domain."""


class UnsupportedModelError(ConfigError):
    """The directory holds a model of another architecture."""

    def __init__(self, model_type: str) -> None:
        super().__init__(
            f"model_type {model_type!r} is not supported; this worker serves 'deepseek_v4' only"
        )
        self.model_type = model_type


class CheckpointError(WorkerError):
    """Tensors are missing, unexpected, of the wrong dtype or shape, truncated or corrupt."""

    def __init__(self, summary: str, problems: list[str]) -> None:
        shown = problems[:20]
        more = len(problems) - len(shown)
        lines = [summary, *shown] + ([f"... and {more} more"] if more else [])
        super().__init__("\n  ".join(lines))
        self.summary = summary
        self.problems = problems

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:
        """Pickles: a rank sends its load error to the process that started it."""
        return type(self), (self.summary, self.problems)


class WeightsError(WorkerError):
    """Weights cannot be fetched: refused, gone, changed, no room; or they are other ones."""


class EngineCrashed(WorkerError):
    """The step loop ended with an exception; no request can be served any more."""


class PeerLost(WorkerError):
    """Another rank of the group has died, or did not take part in a collective in time."""


class RequestError(WorkerError):
    """A request cannot be served. `body` is OpenAI's error shape; `extra` adds members to it."""

    status: int = 500
    type: ClassVar[str] = "invalid_request_error"
    code: str = "internal_error"
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None, **extra: int) -> None:
        cut = len(message) > MOST_MESSAGE_CHARACTERS  # many quote what the caller sent
        super().__init__(f"{message[:MOST_MESSAGE_CHARACTERS]}..." if cut else message)
        self.param = param
        self.extra = extra

    def body(self) -> dict[str, dict[str, object]]:
        """The JSON body of the error response."""
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
                **self.extra,
            }
        }


class InvalidRequest(RequestError):
    """Malformed JSON, a field missing or of the wrong type, or something not supported."""

    status = 400
    code = "invalid_request"


class ContextLengthExceeded(RequestError):
    """The prompt leaves no room for one token."""

    status = 400
    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, max_model_len: int, param: str) -> None:
        super().__init__(
            f"This model's maximum context length is {max_model_len} tokens, but the prompt has "
            f"{prompt_tokens} tokens and leaves no room for one more.",
            param=param,
            prompt_tokens=prompt_tokens,
            max_model_len=max_model_len,
        )


class InvalidKey(RequestError):
    """The request does not show this worker's key."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("the API key is missing or wrong")


class InvalidParameter(RequestError):
    """A well-formed field holds a value out of its domain."""

    status = 422
    code = "invalid_parameter"


class ModelNotFound(RequestError):
    """Another model is served here."""

    status = 404
    code = "model_not_found"


class UsageNotFound(RequestError):
    """The usage journal has no such request, or there is no journal."""

    status = 404
    code = "usage_not_found"


class RouteNotFound(RequestError):
    """No such path, or not with this method."""

    code = "not_found"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PromptExceedsLimit(RequestError):
    """The prompt is longer than the caller will pay for; tells the true count."""

    status = 409
    code = "prompt_exceeds_limit"

    def __init__(self, prompt_tokens: int, max_prompt_tokens: int) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens} tokens; max_prompt_tokens is {max_prompt_tokens}.",
            param="max_prompt_tokens",
            prompt_tokens=prompt_tokens,
        )


class RequestTooLarge(RequestError):
    """The body has more bytes than the server reads."""

    status = 413
    code = "request_too_large"


class GenerationFailed(RequestError):
    """The model gave no usable result for this request; others are unaffected."""

    type = "server_error"
    code = "generation_failed"


class DeadlineExceeded(RequestError):
    """The request was not finished within its `deadline_seconds`."""

    status = 504
    type = "server_error"
    code = "deadline_exceeded"

    def __init__(self, completion_tokens: int) -> None:
        super().__init__(
            f"The request was given up at its deadline, after {completion_tokens} output tokens.",
            param="deadline_seconds",
            completion_tokens=completion_tokens,
        )


class Unavailable(RequestError):
    """This worker cannot take the request now."""

    status = 503
    type = "server_error"
    retry_after_seconds = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
