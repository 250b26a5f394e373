"""Entering a container over the API server's WebSocket, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from controlplane.ssh_gateway.remote import STDERR, STDOUT, RemoteError, Terminal
from controlplane.ssh_gateway.websocket import ApiAccess, WebSocketRemote, exit_status

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


@dataclass
class ApiServer:
    """What an API server does with `exec`: `script` speaks for the container."""

    script: Script | None = None
    protocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    requests: list[web.Request] = field(default_factory=list)

    async def exec(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.script is None:
            return web.Response(status=404)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        await self.script(socket)
        await socket.close()
        return socket

    async def pod(self, request: web.Request) -> web.Response:
        return web.json_response({"status": {"podIP": "127.9.9.9"}})


@pytest.fixture
async def api() -> AsyncIterator[tuple[ApiServer, WebSocketRemote]]:
    server = ApiServer()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/n/pods/p/exec", server.exec)
    app.router.add_get("/api/v1/namespaces/n/pods/p", server.pod)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as http:
        access = ApiAccess(url, lambda: {"authorization": "Bearer t"}, None)
        yield server, WebSocketRemote(access, http)
    await runner.cleanup()


async def test_both_streams_and_the_exit_status_arrive(
    api: tuple[ApiServer, WebSocketRemote],
) -> None:
    server, remote = api

    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01out")
        await socket.send_bytes(b"\x02err")
        cause = {"reason": "ExitCode", "message": "9"}
        status = {"status": "Failure", "details": {"causes": [cause]}}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())

    server.script = script
    process = await remote.start("n", "p", ["/bin/sh", "-c", "a b&c"], None)
    assert [it async for it in process.output()] == [(STDOUT, b"out"), (STDERR, b"err")]
    assert await process.exit_status() == 9
    query = server.requests[0].query
    assert query.getall("command") == ["/bin/sh", "-c", "a b&c"]
    assert (query["container"], query["stderr"]) == ("workspace", "true")
    assert "tty" not in query
    assert server.requests[0].headers["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("protocol", "closing"), [("v5.channel.k8s.io", [b"\xff\x00"]), ("v4.channel.k8s.io", [])]
)
async def test_input_and_its_end_are_sent_as_the_protocol_can(
    api: tuple[ApiServer, WebSocketRemote], protocol: str, closing: list[bytes]
) -> None:
    server, remote = api
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            received.put_nowait(message.data)

    server.script, server.protocols = script, (protocol,)
    process = await remote.start("n", "p", ["cat"], None)
    await process.write(b"in\x00\xff")
    await process.write_eof()
    await process.close()
    expected = [b"\x00in\x00\xff", *closing]
    assert [await asyncio.wait_for(received.get(), 5) for _ in expected] == expected


async def test_a_terminal_is_asked_for_with_its_size(
    api: tuple[ApiServer, WebSocketRemote],
) -> None:
    server, remote = api
    sizes: list[bytes] = []

    async def script(socket: web.WebSocketResponse) -> None:
        sizes.append(await socket.receive_bytes())
        sizes.append(await socket.receive_bytes())

    server.script = script
    process = await remote.start("n", "p", ["sh"], Terminal("xterm", 80, 24))
    await process.resize(100, 50)
    assert [it async for it in process.output()] == []
    assert [json.loads(it[1:]) for it in sizes] == [
        {"Width": 80, "Height": 24},
        {"Width": 100, "Height": 50},
    ]
    assert {it[0] for it in sizes} == {4}
    assert server.requests[0].query.getall("command") == ["/usr/bin/env", "TERM=xterm", "sh"]
    with pytest.raises(RemoteError, match="lost"):
        await process.exit_status()


async def test_a_pod_that_does_not_run_is_told_in_a_sentence(
    api: tuple[ApiServer, WebSocketRemote],
) -> None:
    _, remote = api
    with pytest.raises(RemoteError, match="does not run right now"):
        await remote.start("n", "p", ["true"], None)


async def test_a_pods_address_is_read(api: tuple[ApiServer, WebSocketRemote]) -> None:
    _, remote = api
    assert await remote.address("n", "p") == "127.9.9.9"
    with pytest.raises(RemoteError):
        await remote.address("n", "other")


@pytest.mark.parametrize("status", [b"", b"{}", b'{"status":"Failure","details":{}}'])
def test_a_status_that_tells_nothing_is_a_failure(status: bytes) -> None:
    assert exit_status(status) == 255
    assert exit_status(b'{"status":"Success"}') == 0
