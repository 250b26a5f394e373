"""A small world of money for tests: a tenant, a key, a price, a gateway epoch, and what they do."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from controlplane.accounts import epochs, funds, holds, ledger, opening
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.holds import HoldRequest
from controlplane.accounts.ledger import Entry, Posting
from controlplane.billing import settlement
from controlplane.billing.books import BooksReport, check_books
from controlplane.db import open_engine, session_factory, uuid7
from controlplane.errors import ControlPlaneError
from controlplane.pricing import book
from controlplane.pricing.rating import Price
from controlplane.tenants import keys
from controlplane.usage import sink
from controlplane.usage.records import Final, Opened, Progress, TokenUsage
from controlplane.usage.traces import Trace

PEPPER = b"a pepper for tests"
MODEL = "deepseek-v4-flash"
GATEWAY = "test-gateway"
HIT_P, MISS_P, OUTPUT_P = 2_800, 140_000, 280_000


@dataclass(frozen=True)
class Customer:
    """A tenant with one key."""

    tenant_id: uuid.UUID
    project_id: uuid.UUID
    api_key_id: uuid.UUID
    token: str


class Shop:
    """Sells tokens of one model; each method is one transaction."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions
        with sessions.begin() as session:
            version = book.publish(
                session, model=MODEL, hit_rate_p=HIT_P, miss_rate_p=MISS_P, output_rate_p=OUTPUT_P
            )
            self.price: Price = book.as_price(version)
            self.epoch_id = epochs.begin(session, GATEWAY)

    def customer(self, balance_p: int = 0) -> Customer:
        with self.sessions.begin() as session:
            tenant = opening.create_tenant(session, name=f"tenant {uuid7()}")
            key, token = keys.issue(session, PEPPER, tenant_id=tenant.id, name="key")
            customer = Customer(tenant.id, key.project_id, key.id, token)
        if balance_p:
            self.top_up(customer, balance_p)
        return customer

    def top_up(self, customer: Customer, amount_p: int) -> None:
        with self.sessions.begin() as session:
            ledger.top_up(
                session,
                tenant_id=customer.tenant_id,
                amount_p=amount_p,
                reason="test",
                author="test",
            )

    def use_up(self, tenant_id: uuid.UUID) -> None:
        """Take everything off a tenant's account."""
        with self.sessions.begin() as session:
            accounts = funds.lock(session, tenant_ids=[tenant_id], platform=["adjustments"])
            account, ours = accounts.by_tenant[tenant_id], accounts.by_kind["adjustments"]
            entries = [Entry(account, -account.balance_p), Entry(ours, account.balance_p)]
            ledger.post(session, [Posting("adjustment", tenant_id, entries, "used up", "test")])

    def request(
        self,
        customer: Customer,
        *,
        request_id: uuid.UUID | None = None,
        prompt_tokens: int = 100,
        max_tokens: int = 10,
        shrinkable: bool = False,
        exact_prompt: bool = False,
    ) -> HoldRequest:
        return HoldRequest(
            request_id=request_id or uuid7(),
            tenant_id=customer.tenant_id,
            api_key_id=customer.api_key_id,
            epoch_id=self.epoch_id,
            price=self.price,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            shrinkable=shrinkable,
            exact_prompt=exact_prompt,
        )

    def place(self, *requests: HoldRequest) -> list[HoldPlan | ControlPlaneError]:
        with self.sessions.begin() as session:
            return holds.place(session, requests)

    def hold(self, customer: Customer, **terms: int) -> uuid.UUID:
        """Place one hold that must succeed; return the request's id."""
        request = self.request(customer, **terms)
        (outcome,) = self.place(request)
        assert isinstance(outcome, HoldPlan), outcome
        return request.request_id

    def opened(
        self, customer: Customer, request_id: uuid.UUID, plan: HoldPlan | None = None
    ) -> Opened:
        return Opened(
            request_id=request_id,
            tenant_id=customer.tenant_id,
            api_key_id=customer.api_key_id,
            model=MODEL,
            path="serverless",
            thinking=False,
            streamed=True,
            price_version_id=self.price.version_id,
            started_at_us=now_us(),
            band=self.price.band,
            prompt_tokens=plan.prompt_tokens if plan else 0,
            completion_tokens=plan.completion_tokens if plan else 0,
            amount_p=plan.amount_p if plan else None,
        )

    def trace(self, customer: Customer, request_id: uuid.UUID, usage: TokenUsage) -> Trace:
        """An ended request as a journal tells it."""
        trace = Trace(self.opened(customer, request_id))
        trace.apply(final(request_id, usage))
        return trace

    def stage(self, *traces: Trace) -> int:
        with self.sessions.begin() as session:
            return sink.stage(session, traces)

    def settle(self, limit: int = 500) -> int:
        """Settle until nothing is left; return how many rows were dealt with."""
        total = 0
        while True:
            with self.sessions.begin() as session:
                count = settlement.settle(session, limit)
            total += count
            if count == 0:
                return total

    def release_dead(self) -> int:
        with self.sessions.begin() as session:
            late = datetime.now(UTC) + timedelta(seconds=settlement.WITNESS_SECONDS)
            return settlement.release_dead(session, late)

    def close_epoch(self) -> None:
        with self.sessions.begin() as session:
            epochs.close(session, self.epoch_id)

    def balance(self, customer: Customer) -> ledger.Balance:
        with self.sessions.begin() as session:
            return ledger.balance(session, tenant_id=customer.tenant_id)

    def books(self) -> BooksReport:
        with self.sessions.begin() as session:
            return check_books(session)


def now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1e6)


def progress(request_id: uuid.UUID, usage: TokenUsage) -> Progress:
    return Progress(request_id, "replica-1", usage, now_us())


def final(request_id: uuid.UUID, usage: TokenUsage, finish_reason: str = "stop") -> Final:
    return Final(request_id, "replica-1", usage, finish_reason, now_us(), now_us())


def cost_p(usage: TokenUsage) -> int:
    """The price of tokens, worked out independently of the product's rating."""
    return usage.hit_tokens * HIT_P + usage.miss_tokens * MISS_P + usage.output_tokens * OUTPUT_P


@pytest.fixture
def sessions(database_url: str) -> Iterator[sessionmaker[Session]]:
    """Sessions on a fresh database."""
    engine = open_engine(database_url, pool_size=10)
    yield session_factory(engine)
    engine.dispose()


@pytest.fixture
def shop(sessions: sessionmaker[Session]) -> Shop:
    """A shop on a fresh database."""
    return Shop(sessions)
