"""Who may see what of the gateway, beside what customers ask for."""

import socket

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send
from support.ports import free_port

from controlplane.errors import StartupError
from controlplane.gateway.app import create_app
from controlplane.gateway.observation import Door, Observation
from controlplane.settings import Settings


async def nobody_else(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the gateway answers this itself")


@pytest.mark.parametrize(
    ("peer", "status"),
    [("127.0.0.1", 200), ("127.8.9.1", 200), ("::1", 200), ("10.1.2.3", 404), ("8.8.8.8", 404)],
)
async def test_only_this_machine_reads_metrics(peer: str, status: int) -> None:
    settings = Settings(
        DATABASE_URL="postgresql://nowhere/x",
        REDIS_URL="redis://nowhere",
        key_pepper=SecretStr("pepper"),
    )
    transport = httpx.ASGITransport(create_app(settings, nobody_else), client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        response = await http.get("/metrics")
    assert response.status_code == status
    assert ("flashplane_gateway" in response.text) == (status == 200)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_with_a_door_of_their_own_the_customers_origin_shows_nothing(path: str) -> None:
    settings = Settings(
        DATABASE_URL="postgresql://nowhere/x",
        REDIS_URL="redis://nowhere",
        key_pepper=SecretStr("pepper"),
    )
    app = create_app(settings, nobody_else, observed_at=("127.0.0.1", 1))
    for peer, is_shown in (("10.1.2.3", False), ("127.0.0.1", True)):
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert ((await http.get(path)).status_code != 404) == is_shown


async def test_a_door_opens_and_closes() -> None:
    port = free_port()
    is_ready = False
    door = Door(Observation(lambda: is_ready), "127.0.0.1", port)
    door.open()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            statuses = {
                path: (await http.get(path)).status_code
                for path in ("/health", "/ready", "/metrics", "/v1/models", "/")
            }
            assert list(statuses.values()) == [200, 503, 200, 404, 404]
            is_ready = True
            assert (await http.get("/ready")).status_code == 200
            assert (await http.post("/ready")).status_code == 405
    finally:
        await door.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_door_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        door = Door(Observation(lambda: True), "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(StartupError, match="choose another with --metrics-port"):
            door.open()
        await door.close()
