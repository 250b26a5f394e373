"""A request to an engine that answers it: choice, retries, refusals. Called by `chat`.

A request is sent again only while nothing of an answer has arrived, and only if the attempt did
not start (nobody listened, the engine refused it as overloaded) or died with its connection: at
most one generation is ever billed.
"""

from dataclasses import dataclass

import msgspec

from controlplane.errors import (
    ContextLengthExceeded,
    ControlPlaneError,
    InvalidRequest,
    Unavailable,
    UnprocessableRequest,
)
from controlplane.gateway.cancellation import Cancellation
from controlplane.gateway.connection import ConnectionLost, UpstreamError, UpstreamTimeout
from controlplane.gateway.router import Router
from controlplane.gateway.upstream import ConnectFailed, Response, Upstream
from controlplane.replicas import Replica

PATH = "/v1/chat/completions"
MAX_ATTEMPTS = 3
MAX_ERROR_BYTES = 64 * 1024


class PromptExceedsLimit(Exception):
    """The prompt is longer than the hold covers; nothing was generated."""

    def __init__(self, prompt_tokens: int) -> None:
        super().__init__(prompt_tokens)
        self.prompt_tokens = prompt_tokens


class TryAnother(Exception):
    """This attempt came to nothing; another may not."""


@dataclass(slots=True)
class Answer:
    """An engine's answer whose first bytes have arrived; `close` it when done."""

    replica: Replica
    response: Response
    first: bytes
    router: Router

    def close(self) -> None:
        """Free the connection and the replica's slot."""
        self.response.close()
        self.router.leave(self.replica)


class EngineError(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: str | None = None
    prompt_tokens: int | None = None
    max_model_len: int | None = None


class _EngineErrorBody(msgspec.Struct):
    error: EngineError


_ERROR = msgspec.json.Decoder(_EngineErrorBody)


class Dispatcher:
    """Finds an engine that answers."""

    def __init__(self, router: Router, upstream: Upstream) -> None:
        self._router = router
        self._upstream = upstream

    async def dispatch(
        self, model: str, path: str, body: bytes, *, request_id: str, cancellation: Cancellation
    ) -> Answer:
        """Return the answer to `body` of the first engine that gives one.

        Raises:
            PromptExceedsLimit: the engine counted more prompt tokens than `max_prompt_tokens`.
            InvalidRequest: the engine refuses the request, whichever engine it is.
            Unavailable: no engine answered.
            Aborted: `cancellation` was set.
        """
        tried: list[str] = []
        for _ in range(MAX_ATTEMPTS):
            cancellation.check()
            replica = self._router.choose(model, path, tried)
            if tried.count(replica.id) == 2:
                break
            tried.append(replica.id)
            self._router.enter(replica)
            try:
                return await self._attempt(replica, body, request_id, cancellation)
            except TryAnother:
                self._router.leave(replica)
            except BaseException:
                self._router.leave(replica)
                raise
        raise Unavailable(f"no replica of {model!r} answered", code="engine_unavailable")

    async def _attempt(
        self, replica: Replica, body: bytes, request_id: str, cancellation: Cancellation
    ) -> Answer:
        try:
            response = await self._upstream.post(
                replica.url, PATH, body, request_id=request_id, cancellation=cancellation
            )
            try:
                if response.status != 200:
                    raise await _refusal(response)
                first = await response.read()
            except BaseException:
                response.close()
                raise
        except ConnectFailed as error:
            self._router.eject(replica)
            raise TryAnother from error
        except ConnectionLost as error:
            raise TryAnother from error
        except UpstreamTimeout as error:
            raise Unavailable("the engine did not answer in time", code="engine_timeout") from error
        except UpstreamError as error:
            raise Unavailable("the engine failed", code="engine_failed") from error
        return Answer(replica, response, first, self._router)


async def _refusal(response: Response) -> Exception:
    """Return what an answer other than 200 means to the request."""
    content = b""
    while len(content) < MAX_ERROR_BYTES and (data := await response.read()):
        content += data
    try:
        error = _ERROR.decode(content).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = EngineError()
    return classify(response.status, error)


def classify(status: int, error: EngineError) -> Exception:
    """Return the exception that an engine's error stands for; pure."""
    # 404: the registry sent us to an engine that serves another model by now.
    if status in (404, 429, 503):
        return TryAnother()
    if status == 409 and error.prompt_tokens is not None:
        return PromptExceedsLimit(error.prompt_tokens)
    if error.code == "context_length_exceeded":
        if error.prompt_tokens is not None and error.max_model_len is not None:
            return context_length_exceeded(error.prompt_tokens, error.max_model_len)
        return ContextLengthExceeded(error.message)
    known: dict[int, type[ControlPlaneError]] = {400: InvalidRequest, 422: UnprocessableRequest}
    if status in known and error.message:
        return known[status](error.message, code=error.code, param=error.param)
    return Unavailable("the engine failed", code="engine_failed")


def context_length_exceeded(prompt_tokens: int, max_model_len: int) -> ContextLengthExceeded:
    """Return the error that tells both lengths."""
    return ContextLengthExceeded(
        f"This model's maximum context length is {max_model_len} tokens, but the prompt has "
        f"{prompt_tokens} tokens and leaves no room for an answer.",
        param="messages",
    )
