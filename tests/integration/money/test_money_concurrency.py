"""Threads that hold, settle, top up and release at once: never negative, exact at the end."""

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import select
from support.shop import MISS_P, OUTPUT_P, Customer, Shop, cost_p

from controlplane.accounts.bounds import HoldPlan
from controlplane.billing import settlement
from controlplane.billing.gpu import intervals
from controlplane.deployments.models import GpuInterval
from controlplane.errors import InsufficientBalance
from controlplane.pricing import gpu
from controlplane.registry.leases import Lease
from controlplane.usage.records import TokenUsage

ONE_HOLD_P = 100 * MISS_P + 10 * OUTPUT_P


def at_once(*tasks: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def test_no_more_holds_than_money_however_many_ask(shop: Shop) -> None:
    customer = shop.customer(10 * ONE_HOLD_P)
    outcomes: list[object] = []

    def ask() -> None:
        for _ in range(5):
            outcomes.extend(shop.place(shop.request(customer, exact_prompt=True)))

    at_once(*[ask] * 8)
    granted = [outcome for outcome in outcomes if isinstance(outcome, HoldPlan)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, InsufficientBalance)]
    assert (len(granted), len(refused)) == (10, 30)
    assert shop.balance(customer).available_p == 0


class Storm:
    """What several gateways, settlers and a cashier do to the same customers."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.customers = [shop.customer(60 * ONE_HOLD_P) for _ in range(5)]
        self.spent_p: Counter[Customer] = Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()

    def gateway(self, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(15):
            chosen = [dice.choice(self.customers) for _ in range(6)]
            requests = [self.shop.request(customer) for customer in chosen]
            outcomes = self.shop.place(*requests)
            for customer, request, outcome in zip(chosen, requests, outcomes, strict=True):
                if isinstance(outcome, HoldPlan):
                    prompt = dice.randint(0, outcome.prompt_tokens)
                    usage = TokenUsage(0, prompt, dice.randint(0, 10), 0)
                    self.shop.stage(self.shop.trace(customer, request.request_id, usage))
                    with self.lock:
                        self.spent_p[customer] += cost_p(usage)

    def settler(self) -> None:
        while not self.over.is_set():
            with self.shop.sessions.begin() as session:
                settlement.settle(session, 7)

    def cashier(self) -> None:
        for _ in range(20):
            for customer in self.customers:
                self.shop.top_up(customer, 1)

    def traffic(self) -> None:
        try:
            at_once(*(partial(self.gateway, seed) for seed in range(3)), self.cashier)
        finally:
            self.over.set()


def test_gateways_settlers_and_top_ups_together_stay_exact(shop: Shop) -> None:
    storm = Storm(shop)
    at_once(storm.traffic, storm.settler, storm.settler)
    shop.settle()
    report = shop.books()
    assert report.violations == []
    assert (report.held_p, report.open_holds, report.staged) == (0, 0, 0)
    for customer in storm.customers:
        expected_p = 60 * ONE_HOLD_P + 20 - storm.spent_p[customer]
        assert shop.balance(customer).balance_p == expected_p


def test_gpu_time_and_tokens_share_an_account_without_overdrawing_it(shop: Shop) -> None:
    """Meters race gateways for the last of the money: never negative, exact, nothing paid twice."""
    storm = Storm(shop)
    start = datetime(2040, 1, 1, tzinfo=UTC)
    lives = [(uuid.uuid4(), customer) for customer in storm.customers for _ in range(2)]
    with shop.sessions.begin() as session:
        gpu.publish(
            session, configuration="g", kind="on_demand", rate_p_per_hour=100 * ONE_HOLD_P + 7
        )

    def proofs(seconds: float) -> list[Lease]:
        began = start.timestamp()
        return [
            Lease(
                uid=str(uid),
                replica="r",
                deployment="n/d",
                path="bare",
                tenant_id=str(customer.tenant_id),
                configuration="g",
                gpus=1,
                spot=False,
                alive_since=began,
                published_at=began + seconds,
            )
            for uid, customer in lives
        ]

    def meter() -> None:
        for minute in range(1, 40):
            now = start + timedelta(minutes=minute)
            with shop.sessions.begin() as session:
                intervals.extend(session, proofs(60 * minute), now)
            with shop.sessions.begin() as session:
                intervals.charge(session, now, limit=3)

    at_once(storm.traffic, storm.settler, meter, meter)
    shop.settle()
    end = start + timedelta(hours=2)
    with shop.sessions.begin() as session:
        while intervals.charge(session, end):
            pass
        lives = session.scalars(select(GpuInterval)).all()
    assert {interval.billed_ms for interval in lives} == {39 * 60_000}
    assert shop.books().violations == []
