"""Health, readiness and metrics, and a door of their own for them. Made by `app`.

In a cluster probes and scrapers come from other machines, as customers do; what they may see the
customers may not. There they get a second port, which no ingress leads to.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from controlplane.db import uuid7
from controlplane.errors import (
    ControlPlaneError,
    MethodNotAllowed,
    NotFound,
    StartupError,
    Unavailable,
)
from controlplane.gateway.protocol import BoundedHeadProtocol
from controlplane.gateway.reply import Reply

PATHS = ("/health", "/ready", "/metrics")


class Observation:
    """Answers `PATHS`; by itself an ASGI app that knows no other."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready

    async def answer(self, path: str, method: str, reply: Reply) -> None:
        """Answer one request.

        Raises:
            NotFound: no such path.
            MethodNotAllowed: it is not a GET.
            Unavailable: not ready, where that is the question.
        """
        if path not in PATHS:
            raise NotFound("There is nothing here.")
        if method != "GET":
            raise MethodNotAllowed(f"{path} takes GET")
        if path == "/metrics":
            await reply.text(generate_latest(), CONTENT_TYPE_LATEST.encode())
        elif path == "/health":
            await reply.json(200, b'{"status":"ok"}')
        elif self._is_ready():
            await reply.json(200, b'{"status":"ready"}')
        else:
            raise Unavailable("the gateway is starting or stopping", code="gateway_not_ready")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        reply = Reply(send, str(uuid7()))
        try:
            await self.answer(scope["path"], scope["method"], reply)
        except ControlPlaneError as error:
            await reply.error(error)


def refuse_strangers(scope: Scope) -> None:
    """On the customers' origin the platform's own paths are this machine's alone.

    Raises:
        NotFound: the peer is another machine.
    """
    host, _ = scope.get("client") or ("", 0)
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise NotFound("There is nothing here.")


class _Server(uvicorn.Server):
    """Leaves signals to the server in whose process it runs."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Door:
    """Serves an `Observation` on a port of its own, on the running event loop."""

    def __init__(self, observation: Observation, host: str, port: int) -> None:
        self._address = (host, port)
        self._server = _Server(
            uvicorn.Config(
                observation,
                http=BoundedHeadProtocol,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to listen.

        Raises:
            StartupError: the port is taken, or not ours to take.
        """
        host, port = self._address
        try:
            listener = socket.create_server(
                self._address, family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            raise StartupError(
                f"cannot listen on {host} port {port}: {error.strerror};"
                " choose another with --metrics-port"
            ) from error
        self._serving = asyncio.create_task(self._server.serve([listener]))

    async def close(self) -> None:
        """Stop listening and let answers under way end."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
