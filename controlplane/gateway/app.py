"""The gateway's ASGI app: its own few paths, everything else to a fallback app.

Called by the `flashplane gateway` entry point, which runs it under uvicorn with
`timeout_graceful_shutdown` set: a request still running then is cancelled, which this app takes as
its client's leaving. The fallback is the tenants' REST API; the gateway knows nothing of it.
"""

import asyncio
import logging
import uuid

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.db import uuid7
from controlplane.errors import (
    ControlPlaneError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RequestTooLarge,
    StartupError,
    Unavailable,
)
from controlplane.gateway import catalog, telemetry
from controlplane.gateway.auth import bearer_token
from controlplane.gateway.call import Call
from controlplane.gateway.cancellation import Aborted
from controlplane.gateway.endpoints import ENDPOINTS, Endpoint
from controlplane.gateway.lifecycle import Epoch, Gateway
from controlplane.gateway.meter import now_us
from controlplane.gateway.observation import PATHS, Door, Observation, refuse_strangers
from controlplane.gateway.reply import Reply
from controlplane.settings import Settings

BODY_TIMEOUT_SECONDS = 60.0
# A path is the same under each, as it is at DeepSeek.
PREFIXES = ("/v1", "/beta")
MODELS = "/models"

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings, fallback: ASGIApp, *, observed_at: tuple[str, int] | None = None
) -> ASGIApp:
    """Return the gateway's app.

    Args:
        settings: all of the gateway's.
        fallback: answers what the gateway does not know.
        observed_at: host and port of a second listener for health, readiness and metrics, which
            the app's own then shows to this machine alone; None: there is none, and only metrics
            are hidden.

    Raises:
        StartupError: a setting makes no sense.
    """
    return _App(Gateway(settings), settings, fallback, observed_at)


class _ClientLeft(Exception):
    """The client left before its request was complete."""


class _App:
    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        fallback: ASGIApp,
        observed_at: tuple[str, int] | None,
    ) -> None:
        self._gateway = gateway
        self._observation = Observation(lambda: gateway.is_ready)
        self._door = Door(self._observation, *observed_at) if observed_at else None
        self._hidden = ("/metrics",) if observed_at is None else PATHS
        self._max_body_bytes = settings.max_body_bytes
        self._fallback = fallback
        self._calls: dict[asyncio.Task[None], Call] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        path: str = scope["path"]
        own = next((path.removeprefix(it) for it in PREFIXES if path.startswith(it + "/")), path)
        is_own = own in ENDPOINTS or own == MODELS or own.startswith(MODELS + "/")
        if scope["type"] != "http" or not (is_own or path in PATHS):
            await self._fallback(scope, receive, send)
            return
        request_id = uuid7()
        reply = Reply(send, str(request_id))
        try:
            await self._route(own, scope, receive, reply, request_id)
        except _ClientLeft:
            return
        except ControlPlaneError as error:
            await reply.error(error)
        except asyncio.CancelledError:
            # The server's grace is over: who has had no word yet may ask another gateway.
            if reply.status is not None:
                raise
            await reply.error(_not_ready())

    async def _route(
        self, path: str, scope: Scope, receive: Receive, reply: Reply, request_id: uuid.UUID
    ) -> None:
        if path in PATHS:
            if path in self._hidden:
                refuse_strangers(scope)
            await self._observation.answer(path, scope["method"], reply)
            return
        endpoint = ENDPOINTS.get(path)
        expected = "GET" if endpoint is None else "POST"
        if scope["method"] != expected:
            raise MethodNotAllowed(f"{scope['path']} takes {expected}")
        if endpoint is not None:
            await self._complete(endpoint, scope, receive, reply, request_id)
        else:
            await self._describe(path.removeprefix(MODELS).removeprefix("/"), scope, reply)

    async def _describe(self, model: str, scope: Scope, reply: Reply) -> None:
        """Answer with a model the caller may ask for; with all of them if it is nameless."""
        gateway = self._gateway
        principal = await gateway.authenticator.principal(bearer_token(scope["headers"]))
        known = (gateway.prices.book, gateway.aliases, gateway.router, principal.tenant_id)
        found = catalog.describe(*known, model) if model else catalog.listing(*known)
        await reply.json(200, msgspec.json.encode(found))

    def _epoch(self) -> Epoch:
        epoch = self._gateway.epoch
        if epoch is None or not self._gateway.is_ready:
            raise _not_ready()
        return epoch

    async def _complete(
        self,
        endpoint: Endpoint,
        scope: Scope,
        receive: Receive,
        reply: Reply,
        request_id: uuid.UUID,
    ) -> None:
        """Serve a request in a task of its own, which only its cancellation can end early."""
        started_at_us = now_us()
        epoch = self._epoch()
        headers = list(scope["headers"])
        # Nobody unknown may make us wait for a body and keep it.
        await self._gateway.authenticator.principal(bearer_token(headers))
        content = await _read_body(receive, headers, self._max_body_bytes)
        call = Call(request_id, endpoint, headers, content, reply, started_at_us)
        serving = asyncio.create_task(_serve(epoch, call))
        self._calls[serving] = call
        serving.add_done_callback(self._calls.pop)
        leaving = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                call.cancellation.set()
                await asyncio.shield(serving)
        finally:
            call.cancellation.set()
            leaving.cancel()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the fallback's lifespan with the gateway's own inside it."""

        async def receive_after_stop() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._stop()
            return message

        async def send_after_start(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    if self._door is not None:
                        self._door.open()
                    await self._gateway.start()
                except StartupError as error:
                    await self._close_door()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
            await send(message)

        await self._fallback(scope, receive_after_stop, send_after_start)

    async def _stop(self) -> None:
        for call in self._calls.values():
            call.cancellation.set()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._gateway.stop()
        await self._close_door()

    async def _close_door(self) -> None:
        if self._door is not None:
            await self._door.close()


def _not_ready() -> Unavailable:
    return Unavailable("the gateway is starting or stopping", code="gateway_not_ready")


async def _serve(epoch: Epoch, call: Call) -> None:
    outcome = "failed"
    with telemetry.IN_FLIGHT.track_inprogress():
        try:
            await epoch.serving.serve(call)
            outcome = str(call.reply.status)
        except Aborted:
            outcome = "aborted"
        except ControlPlaneError as error:
            outcome = str(error.status) if call.reply.status is None else "failed"
            await call.reply.error(error)
        except Exception:
            _log.exception("request_failed", extra={"request_id": str(call.request_id)})
            await call.reply.error(InternalError("an internal error; the request id names it"))
        finally:
            telemetry.record(call, outcome)


async def _disconnect(receive: Receive) -> None:
    """Return when the client has left, or its response has ended."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(receive: Receive, headers: list[tuple[bytes, bytes]], max_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        RequestTooLarge: longer than `max_bytes`, by its header or in fact.
        InvalidRequest: it did not arrive in time.
    """
    declared = dict(headers).get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise RequestTooLarge(f"the body is larger than {max_bytes} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientLeft
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise RequestTooLarge(f"the body is larger than {max_bytes} bytes")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise InvalidRequest("the body did not arrive in time") from None
