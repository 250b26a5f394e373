"""Entering a container through the API server: its `exec` subresource over a WebSocket.

The protocol is `v5.channel.k8s.io` (Kubernetes 1.30 and newer), where standard input can be closed,
or `v4.channel.k8s.io`: a binary message is one byte of channel, then data. Channel 3 brings, as a
`Status`, how the process ended; channel 4 takes the terminal's size.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ssl import SSLContext
from urllib.parse import quote, urlencode

import aiohttp

from controlplane.ssh_gateway.remote import RemoteError, Terminal

CONTAINER = "workspace"
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STATUS, RESIZE, CLOSE = 0, 3, 4, 255
OPEN_SECONDS = 20.0
HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True)
class ApiAccess:
    """How the API server is reached. `headers` is asked anew each time: tokens are renewed."""

    url: str
    headers: Callable[[], dict[str, str]]
    ssl: SSLContext | None


class WebSocketProcess:
    """A process behind a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._exit_status: int | None = None

    async def write(self, data: bytes) -> None:
        await self._send(bytes([STDIN]) + data)

    async def write_eof(self) -> None:
        if self._socket.protocol == PROTOCOLS[0]:
            await self._send(bytes([CLOSE, STDIN]))

    async def resize(self, columns: int, rows: int) -> None:
        size = json.dumps({"Width": columns, "Height": rows})
        await self._send(bytes([RESIZE]) + size.encode())

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == STATUS:
                self._exit_status = exit_status(data)
            elif channel != CLOSE and data:
                yield channel, data

    async def exit_status(self) -> int:
        if self._exit_status is None:
            raise RemoteError("The connection to the container was lost.")
        return self._exit_status

    async def close(self) -> None:
        await self._socket.close()

    async def _send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise RemoteError("The connection to the container was lost.") from error


class WebSocketRemote:
    """Enters pods through the API server."""

    def __init__(self, access: ApiAccess, http: aiohttp.ClientSession) -> None:
        self._access = access
        self._http = http

    async def start(
        self, namespace: str, pod: str, argv: list[str], terminal: Terminal | None
    ) -> WebSocketProcess:
        if terminal is not None:
            argv = ["/usr/bin/env", f"TERM={terminal.kind or 'xterm'}", *argv]
        query = [("container", CONTAINER), ("stdin", "true"), ("stdout", "true")]
        query.append(("tty", "true") if terminal is not None else ("stderr", "true"))
        query += [("command", word) for word in argv]
        try:
            socket = await self._http.ws_connect(
                f"{self._pod_url(namespace, pod)}/exec?{urlencode(query)}",
                protocols=PROTOCOLS,
                headers=self._access.headers(),
                ssl=self._access.ssl if self._access.ssl is not None else True,
                heartbeat=HEARTBEAT_SECONDS,
                timeout=aiohttp.ClientWSTimeout(ws_close=OPEN_SECONDS),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RemoteError("The endpoint's container does not run right now.") from error
        process = WebSocketProcess(socket)
        if terminal is not None:
            await process.resize(terminal.columns, terminal.rows)
        return process

    async def address(self, namespace: str, pod: str) -> str:
        try:
            async with self._http.get(
                self._pod_url(namespace, pod),
                headers=self._access.headers(),
                ssl=self._access.ssl if self._access.ssl is not None else True,
            ) as response:
                body = await response.json() if response.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RemoteError("The endpoint's container does not run right now.") from error
        address = body.get("status", {}).get("podIP", "")
        if not address:
            raise RemoteError("The endpoint's container does not run right now.")
        return str(address)

    def _pod_url(self, namespace: str, pod: str) -> str:
        return f"{self._access.url}/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}"


def exit_status(status: bytes) -> int:
    """Return the exit status that a `Status` object tells; 255 when it tells none."""
    try:
        body = json.loads(status)
    except ValueError:
        return 255
    if body.get("status") == "Success":
        return 0
    for cause in (body.get("details") or {}).get("causes", ()):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    return 255
