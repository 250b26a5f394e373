"""Who may read the gateway's metrics, which share the customers' origin."""

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from controlplane.gateway.app import create_app
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
