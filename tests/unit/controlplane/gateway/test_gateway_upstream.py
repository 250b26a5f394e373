"""The gateway's side of connections to engines that come and go."""

import asyncio

import pytest

from controlplane.gateway.cancellation import Cancellation
from controlplane.gateway.upstream import ConnectFailed, Upstream

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(first_byte_timeout_seconds=5, idle_timeout_seconds=5)


async def ask(upstream: Upstream, url: str) -> None:
    response = await upstream.post(url, "/v1", b"{}", request_id="r", cancellation=Cancellation())
    while await response.read():
        pass
    response.close()


async def serve(ended: asyncio.Semaphore) -> asyncio.Server:
    """Start an engine; `ended` counts the connections that are over."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(ANSWER)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.release()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999", "http://h:x", "ftp://h", ""])
async def test_an_address_that_is_none_is_an_engine_that_is_not_there(
    upstream: Upstream, url: str
) -> None:
    with pytest.raises(ConnectFailed):
        await ask(upstream, url)


async def test_engines_that_are_gone_are_forgotten(upstream: Upstream) -> None:
    ended = asyncio.Semaphore(0)
    servers = [await serve(ended) for _ in range(2)]
    urls = [f"http://127.0.0.1:{it.sockets[0].getsockname()[1]}" for it in servers]
    for url in urls:
        await ask(upstream, url)
    for port in range(1, 50):
        with pytest.raises(ConnectFailed):
            await ask(upstream, f"http://127.0.0.1:{port}/gone")
    assert set(urls) <= upstream.known
    assert len(upstream.known) <= 3
    upstream.close()
    for server in servers:
        await ended.acquire()
        server.close()
