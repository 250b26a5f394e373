"""The shop that is measured: tenants with money, one price, one gateway's life."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from support.embedded import running

from controlplane.accounts import epochs, ledger, opening
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.holds import HoldRequest
from controlplane.db import open_engine, session_factory, uuid7
from controlplane.pricing import book
from controlplane.pricing.rating import Price
from controlplane.schema import upgrade
from controlplane.supervisor.postgres import Postgres
from controlplane.tenants import keys
from controlplane.usage.records import Final, Opened, TokenUsage
from controlplane.usage.traces import Trace

MODEL = "deepseek-v4-flash"
TOP_UP_P = 10**16
STARTED_AT_US = 1_790_000_000_000_000


@dataclass(frozen=True)
class Customer:
    """A tenant with one key."""

    tenant_id: uuid.UUID
    api_key_id: uuid.UUID


@dataclass(frozen=True)
class World:
    """A database with customers in it; travels to other processes as it is."""

    url: str
    epoch_id: uuid.UUID
    price: Price
    customers: Sequence[Customer]

    def sessions(self) -> sessionmaker[Session]:
        """Return sessions of an engine of this process's own."""
        return session_factory(open_engine(self.url, pool_size=2, by_index=True))

    def request(self, number: int) -> HoldRequest:
        """Return the next request; requests go round all customers."""
        customer = self.customers[number % len(self.customers)]
        return HoldRequest(
            request_id=uuid7(),
            tenant_id=customer.tenant_id,
            api_key_id=customer.api_key_id,
            epoch_id=self.epoch_id,
            price=self.price,
            prompt_tokens=1_000,
            max_tokens=500,
            shrinkable=False,
        )

    def ended(self, request: HoldRequest, plan: HoldPlan) -> Trace:
        """Return the request as its gateway's journal tells it when it has ended."""
        opened = Opened(
            request_id=request.request_id,
            tenant_id=request.tenant_id,
            api_key_id=request.api_key_id,
            model=MODEL,
            path="serverless",
            thinking=False,
            streamed=True,
            price_version_id=request.price.version_id,
            started_at_us=STARTED_AT_US,
        )
        trace = Trace(opened)
        usage = TokenUsage(plan.prompt_tokens // 2, plan.prompt_tokens // 4, 100, 10)
        after_us = STARTED_AT_US + 1_000_000
        trace.apply(Final(request.request_id, "replica-1", usage, "stop", after_us, after_us))
        return trace


@contextmanager
def server(folder: Path) -> Iterator[Postgres]:
    """A new PostgreSQL as `flashplane up` starts it: every commit waits for the disk."""
    it = Postgres(folder / "postgres", folder)
    it.prepare()
    with running(it.command(), it.is_ready, SIGINT, folder / "postgres.log"):
        yield it


def build(postgres: Postgres, name: str, *, customers: int) -> World:
    """Make a migrated database of that name with so many customers who have money."""
    postgres.ensure_database(name)
    url = postgres.url(name)
    upgrade(url)
    sessions = session_factory(open_engine(url))
    with sessions.begin() as session:
        version = book.publish(
            session, model=MODEL, hit_rate_p=2_800, miss_rate_p=140_000, output_rate_p=280_000
        )
        price = book.as_price(version)
        epoch_id = epochs.begin(session, "benchmark")
        people = [_customer(session, number) for number in range(customers)]
    with sessions.begin() as session:
        session.execute(text("ANALYZE"))
    sessions.kw["bind"].dispose()
    return World(url, epoch_id, price, people)


def _customer(session: Session, number: int) -> Customer:
    tenant = opening.create_tenant(session, name=f"tenant {number}")
    key, _ = keys.issue(session, b"pepper", tenant_id=tenant.id, name="key")
    ledger.top_up(
        session, tenant_id=tenant.id, amount_p=TOP_UP_P, reason="benchmark", author="benchmark"
    )
    return Customer(tenant.id, key.id)
