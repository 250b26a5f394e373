"""A gateway on real PostgreSQL and Valkey for tests: in this process, or in one that can be killed.

`python gateway.py PORT` runs one from the environment's settings.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session, sessionmaker
from starlette.applications import Starlette
from support.books import violations

from controlplane.accounts import ledger
from controlplane.accounts.opening import create_tenant
from controlplane.billing.settlement import settle
from controlplane.db import session_factory
from controlplane.gateway.app import create_app
from controlplane.gateway.protocol import BoundedHeadProtocol
from controlplane.money import usd_to_p
from controlplane.pricing import book
from controlplane.registry import gateways, pools, replicas
from controlplane.registry.gateways import GatewayReport
from controlplane.registry.pools import Pool
from controlplane.registry.replicas import Replica
from controlplane.settings import Settings
from controlplane.store import open_store
from controlplane.tenants import keys
from controlplane.usage.models import UsageEvent

MODEL = "deepseek-v4-flash"
PEPPER = "pepper-of-the-tests"
# USD per million tokens 0.0028, 0.14, 0.28.
HIT_RATE_P, MISS_RATE_P, OUTPUT_RATE_P = 2_800, 140_000, 280_000


def serve(app_settings: Settings, port: int) -> uvicorn.Server:
    """A uvicorn server of a gateway, not running yet; port 0 is any free one."""
    config = uvicorn.Config(
        create_app(app_settings, Starlette()),
        host="127.0.0.1",
        port=port,
        http=BoundedHeadProtocol,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=int(app_settings.shutdown_grace_seconds),
    )
    return uvicorn.Server(config)


@dataclass
class World:
    """A database with a priced model, and the store and journal of one gateway."""

    settings: Settings
    sessions: sessionmaker[Session]
    url: str = ""

    def tenant(self, balance_usd: str = "10.00") -> str:
        """Make a tenant with a balance; return a key of it."""
        with self.sessions.begin() as session:
            tenant = create_tenant(session, name=f"tenant-{uuid.uuid4()}")
            if usd_to_p(balance_usd):
                ledger.top_up(
                    session,
                    tenant_id=tenant.id,
                    amount_p=usd_to_p(balance_usd),
                    reason="test",
                    author="test",
                    idempotency_key=None,
                )
            _, token = keys.issue(session, PEPPER.encode(), tenant_id=tenant.id, name="test")
        return token

    def tenant_id(self, key: str) -> str:
        """Whose key it is."""
        with self.sessions.begin() as session:
            principal = keys.authenticate(session, PEPPER.encode(), key)
            assert principal is not None
            return str(principal.tenant_id)

    def publish(
        self, url: str, *, name: str = "r1", max_model_len: int = 100_000, **fields: Any
    ) -> None:
        """Say that an engine at `url` is ready, as its keeper would each second."""
        told = {"model": MODEL, "path": "serverless", **fields}
        replica = Replica(
            name, url, max_model_len=max_model_len, published_at=time.time() + 3600, **told
        )
        with open_store(self.settings.redis_url) as store:
            replicas.publish(store, replica)

    def offer(self, name: str, **fields: Any) -> None:
        """Say that there is a deployment, as the operator would each second."""
        told = {"model": MODEL, "path": "serverless", **fields}
        pool = Pool(name, published_at=time.time() + 3600, **told)
        with open_store(self.settings.redis_url) as store:
            pools.TABLE.publish(store, name, pool)

    def retract(self, name: str) -> None:
        """Say that a deployment is gone."""
        with open_store(self.settings.redis_url) as store:
            pools.TABLE.withdraw(store, name)

    def reports(self) -> list[GatewayReport]:
        """What gateways report now."""
        with open_store(self.settings.redis_url) as store:
            return gateways.TABLE.read(store, time.time())

    async def reported(self, condition: Callable[[GatewayReport], bool]) -> GatewayReport:
        """Wait for this gateway's report to satisfy a condition."""
        async with asyncio.timeout(5):
            while True:
                for report in await asyncio.to_thread(self.reports):
                    if condition(report):
                        return report
                await asyncio.sleep(0.02)

    def withdraw(self, name: str) -> None:
        """Say that an engine takes no more requests."""
        with open_store(self.settings.redis_url) as store:
            replicas.withdraw(store, name)

    def settle(self) -> None:
        """Settle all that is staged."""
        with self.sessions.begin() as session:
            while settle(session, 500):
                pass

    def usage(self) -> list[UsageEvent]:
        """Every settled request, oldest first."""
        with self.sessions.begin() as session:
            return list(session.query(UsageEvent).order_by(UsageEvent.request_id))

    async def settled(self, count: int = 1) -> list[UsageEvent]:
        """Wait until `count` requests are settled and the books exact; return them."""
        deadline = time.monotonic() + 5
        while True:
            await asyncio.to_thread(self.settle)
            rows = self.usage()
            wrong = violations(self.settings.database_url)
            if len(rows) == count and not wrong:
                return rows
            assert time.monotonic() < deadline, (len(rows), wrong)
            await asyncio.sleep(0.02)

    async def settled_all(self) -> list[UsageEvent]:
        """Wait until the books are exact with nothing held; return every settled request."""
        async with asyncio.timeout(5):
            while True:
                await asyncio.to_thread(self.settle)
                if not await asyncio.to_thread(violations, self.settings.database_url):
                    return self.usage()
                await asyncio.sleep(0.02)

    def client(self, key: str) -> openai.AsyncOpenAI:
        """The official client; it does not retry, so that each call is one request."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def http(self, key: str) -> httpx.AsyncClient:
        """A plain client."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=f"{self.url}/v1", headers=headers, timeout=30)


@contextmanager
def make_world(
    database_url: str, redis_url: str, journal_dir: Path, **overrides: object
) -> Iterator[World]:
    """A world whose gateway is still to be started."""
    values: dict[str, object] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "key_pepper": PEPPER,
        "journal_dir": journal_dir,
        "shutdown_grace_seconds": 1,
    }
    settings = Settings(**(values | overrides))  # type: ignore[arg-type]
    # No pool: tests kill their servers, and nothing must be left to a dead one's connections.
    url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, poolclass=NullPool)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        book.publish(
            session,
            model=MODEL,
            hit_rate_p=HIT_RATE_P,
            miss_rate_p=MISS_RATE_P,
            output_rate_p=OUTPUT_RATE_P,
        )
    try:
        yield World(settings, sessions)
    finally:
        engine.dispose()


@asynccontextmanager
async def running_gateway(world: World) -> AsyncIterator[World]:
    """Run the world's gateway on this event loop; leaving stops it as SIGTERM would."""
    server = serve(world.settings, 0)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "the gateway did not start"
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    world.url = f"http://127.0.0.1:{port}"
    try:
        yield world
    finally:
        server.should_exit = True
        await task


if __name__ == "__main__":
    serve(Settings(), int(sys.argv[1])).run()
