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
from starlette.middleware import Middleware
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
    UsageNotFound,
)
from worker.server.answer import error_response
from worker.server.auth import RequireKey
from worker.server.chat import answer_chat
from worker.server.completions import answer_completion, encode_prompt
from worker.server.generation import Serving
from worker.server.journal import Journal
from worker.server.openai import (
    ChatFields,
    CompletionFields,
    TokenizeFields,
    check_common,
    parse_fields,
    parse_json,
    query_number,
)

MAX_BODY_BYTES = 64 << 20
MAX_USAGE_ROWS = 1_000
INLINE_BODY_BYTES = 16 << 10  # a prompt this small is tokenised faster than a thread is woken

T = TypeVar("T")


def create_app(serving: Serving) -> Starlette:
    """The ASGI application. Its lifespan starts and stops the engine's thread."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if serving.journal is not None:
            serving.journal.start()
        warm_up = asyncio.create_task(serving.client.start())
        try:
            yield
        finally:
            warm_up.cancel()
            await serving.client.stop()
            if serving.journal is not None:
                await asyncio.to_thread(serving.journal.stop)

    routes = _Routes(serving)
    keyed = [Middleware(RequireKey, key=serving.api_key)] if serving.api_key else []
    return Starlette(
        middleware=keyed,
        routes=[
            Route("/v1/chat/completions", routes.chat_completions, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/tokenize", routes.tokenize, methods=["POST"]),
            Route("/usage", routes.usage_page),
            Route("/usage/{request_id}", routes.usage),
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
            len(body), lambda: encode_prompt(self._serving.tokenizer, fields.prompt, fields.suffix)
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

    async def usage(self, http: Request) -> Response:
        request_id = http.path_params["request_id"]
        attempts = await self._journal().find(request_id)
        if not attempts:
            raise UsageNotFound("the usage journal does not know this request")
        return _json({"request_id": request_id, "attempts": attempts})

    async def usage_page(self, http: Request) -> Response:
        after = query_number(http.query_params.get("after"), "after", 0, 0, 2**63 - 1)
        limit = query_number(http.query_params.get("limit"), "limit", 100, 1, MAX_USAGE_ROWS)
        attempts = await self._journal().ended_after(after, limit)
        following = attempts[-1]["ended_us"] if attempts else after
        return _json({"attempts": attempts, "next": following})

    async def health(self, http: Request) -> Response:
        unavailable = self._serving.unavailable_reason()
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

    def _journal(self) -> Journal:
        if self._serving.journal is None:
            raise UsageNotFound("this worker keeps no usage journal; --journal gives it one")
        return self._serving.journal

    async def _prompt(self, size_bytes: int, document: dict[str, Any]) -> ChatPrompt:
        if document.get("response_format") or document.get("tools"):
            size_bytes = MAX_BODY_BYTES  # grammars are slow to compile, however short
        return await _offload(size_bytes, lambda: self._serving.chat.encode(document))

    async def _tokens(self, size_bytes: int, document: dict[str, Any]) -> list[int]:
        if "messages" in document:
            return (await self._prompt(size_bytes, document)).token_ids
        fields = parse_fields(document, TokenizeFields)
        return await _offload(
            size_bytes,
            lambda: encode_prompt(self._serving.tokenizer, fields.prompt, fields.suffix),
        )


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
