"""The routes of one engine worker. Made by `launch`; see README.md for what they speak."""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from worker.encoding.chat import ChatPrompt
from worker.errors import (
    GenerationFailed,
    InvalidRequest,
    RequestError,
    RequestTooLarge,
    RouteNotFound,
)
from worker.server.answer import error_response
from worker.server.chat import answer_chat
from worker.server.completions import answer_completion, encode_prompt
from worker.server.generation import Serving
from worker.server.openai import (
    ChatFields,
    CompletionFields,
    check_common,
    parse_fields,
    parse_json,
)

MAX_BODY_BYTES = 64 << 20
INLINE_BODY_BYTES = 16 << 10  # a prompt this small is tokenised faster than a thread is woken

T = TypeVar("T")


def create_app(serving: Serving) -> Starlette:
    """The ASGI application. Its lifespan starts and stops the engine's thread."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        warm_up = asyncio.create_task(serving.client.start())
        try:
            yield
        finally:
            warm_up.cancel()
            await serving.client.stop()

    routes = _Routes(serving)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", routes.chat_completions, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/tokenize", routes.tokenize, methods=["POST"]),
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
        ],
        exception_handlers={
            RequestError: _on_request_error,
            HTTPException: _on_http_error,
            Exception: _on_defect,
        },
        lifespan=lifespan,
    )


class _Routes:
    """Request in, response out; the work is in `chat`, `completions` and `worker.encoding`."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def chat_completions(self, http: Request) -> Response:
        arrived = time.monotonic()
        body = await _read(http)
        document = parse_json(body)
        fields = parse_fields(document, ChatFields)
        check_common(fields, self._serving.limits)
        prompt = await self._prompt(len(body), document)
        return answer_chat(self._serving, fields, prompt, _name(http), arrived)

    async def completions(self, http: Request) -> Response:
        arrived = time.monotonic()
        body = await _read(http)
        fields = parse_fields(parse_json(body), CompletionFields)
        check_common(fields, self._serving.limits)
        token_ids = await _offload(
            len(body), lambda: encode_prompt(self._serving.tokenizer, fields.prompt)
        )
        return answer_completion(self._serving, fields, token_ids, _name(http), arrived)

    async def tokenize(self, http: Request) -> Response:
        body = await _read(http)
        token_ids = await self._tokens(len(body), parse_json(body))
        limits = self._serving.limits
        return _json(
            {
                "tokens": token_ids,
                "count": len(token_ids),
                "max_model_len": limits.max_model_len,
            }
        )

    async def models(self, http: Request) -> Response:
        limits = self._serving.limits
        card = {
            "id": limits.model,
            "object": "model",
            "created": 0,
            "owned_by": "deepseek",
            "max_model_len": limits.max_model_len,
        }
        return _json({"object": "list", "data": [card]})

    async def health(self, http: Request) -> Response:
        unavailable = self._serving.client.unavailable_reason()
        if unavailable is not None:
            return error_response(unavailable)
        return _json(
            {
                "status": "ok",
                "model": self._serving.limits.model,
                "max_model_len": self._serving.limits.max_model_len,
                "running": self._serving.client.running,
                "waiting": self._serving.client.waiting,
            }
        )

    async def metrics(self, http: Request) -> Response:
        return Response(self._serving.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _prompt(self, size_bytes: int, document: dict[str, Any]) -> ChatPrompt:
        if document.get("response_format") or document.get("tools"):
            size_bytes = MAX_BODY_BYTES  # grammars are slow to compile, however short
        return await _offload(size_bytes, lambda: self._serving.chat.encode(document))

    async def _tokens(self, size_bytes: int, document: dict[str, Any]) -> list[int]:
        if "messages" in document:
            return (await self._prompt(size_bytes, document)).token_ids
        prompt = document.get("prompt")
        if not isinstance(prompt, str):
            raise InvalidRequest("prompt must be a string, or give messages", param="prompt")
        return await _offload(size_bytes, lambda: encode_prompt(self._serving.tokenizer, prompt))


def _name(http: Request) -> str:
    """What the caller calls this request, if that is fit for a log line."""
    name = http.headers.get("x-request-id", "")
    return name if re.fullmatch("[A-Za-z0-9_.-]{1,128}", name) else uuid.uuid4().hex


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


async def _read(http: Request) -> bytes:
    """The whole body. Raises RequestTooLarge."""
    body = bytearray()
    try:
        async for part in http.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise RequestTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise InvalidRequest("the body ended early") from None
    return bytes(body)


async def _offload(size_bytes: int, work: Callable[[], T]) -> T:
    """Run `work` here if its input is small, else in a thread: the loop must not stall."""
    return work() if size_bytes <= INLINE_BODY_BYTES else await asyncio.to_thread(work)


async def _on_request_error(http: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _on_http_error(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(
        RouteNotFound(f"{http.method} {http.url.path}: {error.detail}", error.status_code)
    )


async def _on_defect(http: Request, error: Exception) -> Response:
    return error_response(GenerationFailed("internal error"))
