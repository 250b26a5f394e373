"""What strangers can do to a connection before they have shown a key: not much."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.gateway.protocol import MAX_HEAD_BYTES, BoundedHeadProtocol

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nhi"


class HastyProtocol(BoundedHeadProtocol):
    head_timeout_seconds = 0.2


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, a while after the head's deadline."""
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    await asyncio.sleep(2 * HastyProtocol.head_timeout_seconds)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def open_door(
    protocol: type[BoundedHeadProtocol] = HastyProtocol, app: ASGIApp = echo
) -> AsyncIterator[Callable[[], "asyncio.Future[Connection]"]]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=protocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    try:
        yield lambda: asyncio.ensure_future(connect())
    finally:
        for writer in opened:
            writer.close()
        server.should_exit = True
        await serving


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(3):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def answer(reader: asyncio.StreamReader, body: bytes) -> None:
    async with asyncio.timeout(3):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(len(body)) == body


@pytest.mark.parametrize("beginning", [b"", b"POST /v1", b"POST / HTTP/1.1\r\nX: y\r\n", b"\r\n"])
async def test_a_head_that_never_ends_is_hung_up_on(beginning: bytes) -> None:
    async with open_door() as connect:
        reader, writer = await connect()
        writer.write(beginning)
        assert await read_to_end(reader) == b""


async def test_what_follows_a_request_refused_early_is_no_head() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    body = b"x" * (4 * MAX_HEAD_BYTES)
    async with open_door(app=refuse) as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
            async with asyncio.timeout(3):
                assert b" 413 " in await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"0\r\n\r\n")
            writer.write(body)


async def test_blank_lines_do_not_keep_an_idle_connection() -> None:
    async with open_door() as connect:
        reader, writer = await connect()
        writer.write(REQUEST)
        await answer(reader, b"hi")
        writer.write(b"\r\n")
        assert await read_to_end(reader) == b""


async def test_an_answer_may_take_longer_than_a_head() -> None:
    async with open_door() as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REQUEST)
            await answer(reader, b"hi")


async def test_pipelined_requests_are_each_answered() -> None:
    async with open_door() as connect:
        reader, writer = await connect()
        writer.write(3 * REQUEST)
        for _ in range(3):
            await answer(reader, b"hi")


async def test_a_long_body_is_no_head() -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with open_door() as connect:
        reader, writer = await connect()
        writer.write(2 * request)
        for _ in range(2):
            await answer(reader, body)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: yyyyyyyy\r\n" * 8_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20,
    ],
    ids=["long target", "long header", "many headers", "a header without end"],
)
async def test_a_head_too_large_is_refused(head: bytes) -> None:
    async with open_door(BoundedHeadProtocol) as connect:
        reader, writer = await connect()
        for start in range(0, len(head), 4096):
            writer.write(head[start : start + 4096])
            await asyncio.sleep(0)
        got = await read_to_end(reader)
        # A client still sending may see the reset before the answer.
        assert got == b"" or got.startswith(b"HTTP/1.1 413 ")


async def test_what_is_not_http_is_refused_in_the_shape_of_every_error() -> None:
    async with open_door() as connect:
        reader, writer = await connect()
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        head, _, body = (await read_to_end(reader)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b'{"error":{"message":' in body


async def test_an_offer_of_http2_is_passed_over_and_its_body_kept() -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    request = REQUEST.replace(b"Host: here\r\n", b"Host: here\r\n" + offer)
    async with open_door() as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(request)
            await answer(reader, b"hi")
