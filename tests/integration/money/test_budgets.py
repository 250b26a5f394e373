"""Budgets in any order and from many threads: never beyond one, exact at every commit."""

import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from support.shop import MISS_P, OUTPUT_P, Customer, Shop, cost_p

from controlplane.accounts import budgets, holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.limits import Period
from controlplane.billing import budget_terms, settlement
from controlplane.errors import BudgetExceeded, InsufficientBalance
from controlplane.tenants import keys, projects
from controlplane.usage.records import TokenUsage

BALANCE_P = 10**12
ONE_HOLD_P = 100 * MISS_P + 10 * OUTPUT_P


@dataclass
class Paper:
    """A budget as plain integers."""

    keys: set[uuid.UUID]
    period: Period
    limit_p: int
    spent_p: int = 0
    # Open holds in scope.
    held: dict[uuid.UUID, int] = field(default_factory=dict)

    @property
    def available_p(self) -> int:
        return self.limit_p - self.spent_p - sum(self.held.values())


def two_keys(shop: Shop) -> list[Customer]:
    """One tenant's two keys, in projects of their own."""
    customer = shop.customer(BALANCE_P)
    with shop.sessions.begin() as session:
        project = projects.create(session, tenant_id=customer.tenant_id, name="other")
        key, token = keys.issue(
            session, b"p", tenant_id=customer.tenant_id, project_id=project.id, name="other"
        )
    return [customer, Customer(customer.tenant_id, project.id, key.id, token)]


class Budgets(RuleBasedStateMachine):
    """Keeps budgets on paper, beside the database."""

    shop: ClassVar[Shop]

    def __init__(self) -> None:
        super().__init__()
        self.customers = two_keys(self.shop)
        self.paper: dict[uuid.UUID, Paper] = {}
        self.spent: list[tuple[uuid.UUID, int]] = []  # by key, in today's periods
        self.open: dict[uuid.UUID, tuple[Customer, HoldPlan]] = {}

    @rule(
        who=st.integers(0, 1),
        scope=st.sampled_from(["tenant", "project", "key"]),
        period=st.sampled_from(["day", "total"]),
        limit_p=st.integers(0, 8 * ONE_HOLD_P),
    )
    def set_budget(self, who: int, scope: str, period: Period, limit_p: int) -> None:
        customer = self.customers[who]
        field_of = {"project": "project_id", "key": "api_key_id"}.get(scope)
        terms = {field_of: getattr(customer, field_of)} if field_of else {}
        # Each project has one key.
        everybody = {it.api_key_id for it in self.customers}
        in_scope = {customer.api_key_id} if field_of else everybody
        twins = [
            it
            for it in self._budgets()
            if (it.period, it.scope) == (period, scope)
            and all(getattr(it, name) == value for name, value in terms.items())
        ]
        if twins:
            return
        with self.shop.sessions.begin() as session:
            made = budget_terms.create(
                session, tenant_id=customer.tenant_id, period=period, limit_p=limit_p, **terms
            )
        spent_p = sum(p for key, p in self.spent if key in in_scope) if period == "day" else 0
        held = {
            request_id: plan.amount_p
            for request_id, (owner, plan) in self.open.items()
            if owner.api_key_id in in_scope
        }
        self.paper[made.id] = Paper(in_scope, period, limit_p, spent_p, held)

    @rule(
        who=st.integers(0, 1),
        sizes=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 30)), max_size=3),
        shrinkable=st.booleans(),
    )
    def hold(self, who: int, sizes: list[tuple[int, int]], shrinkable: bool) -> None:
        customer = self.customers[who]
        requests = [
            self.shop.request(
                customer, prompt_tokens=prompt, max_tokens=most, shrinkable=shrinkable
            )
            for prompt, most in sizes
        ]
        mine = [it for it in self.paper.values() if customer.api_key_id in it.keys]
        for request, outcome in zip(requests, self.shop.place(*requests), strict=True):
            least_p = MISS_P + (1 if shrinkable else request.max_tokens) * OUTPUT_P
            left_p = min((it.available_p for it in mine), default=BALANCE_P)
            if not isinstance(outcome, HoldPlan):
                assert isinstance(outcome, BudgetExceeded)
                assert left_p < least_p
                continue
            assert least_p <= outcome.amount_p <= left_p
            self.open[request.request_id] = (customer, outcome)
            for it in mine:
                it.held[request.request_id] = outcome.amount_p

    @rule(dice=st.randoms(use_true_random=False), billed=st.booleans())
    def end(self, dice: random.Random, billed: bool) -> None:
        if not self.open:
            return
        request_id = dice.choice(list(self.open))
        customer, plan = self.open.pop(request_id)
        used = TokenUsage(0, dice.randint(0, plan.prompt_tokens), dice.randint(0, 1), 0)
        if billed:
            self.shop.stage(self.shop.trace(customer, request_id, used))
            self.shop.settle()
            self.spent.append((customer.api_key_id, cost_p(used)))
        else:
            with self.shop.sessions.begin() as session:
                holds.release(session, [request_id])
        for it in self.paper.values():
            if it.held.pop(request_id, None) is not None and billed:
                it.spent_p += cost_p(used)

    @rule()
    def a_day_passes(self) -> None:
        with self.shop.sessions.begin() as session:
            session.execute(
                text("""UPDATE budgets SET period_started_at = period_started_at - interval '1 day'
                        WHERE period = 'day' AND tenant_id = :it"""),
                {"it": self.customers[0].tenant_id},
            )
        for it in self.paper.values():
            it.spent_p = 0 if it.period == "day" else it.spent_p

    @invariant()
    def paper_and_database_agree(self) -> None:
        found = {it.id: (it.limit_p, it.spent_p, it.held_p) for it in self._budgets()}
        assert found == {
            budget_id: (it.limit_p, it.spent_p, sum(it.held.values()))
            for budget_id, it in self.paper.items()
        }
        assert self.shop.books().violations == []

    def _budgets(self) -> list[budgets.Limit]:
        with self.shop.sessions.begin() as session:
            return budgets.of_tenant(session, tenant_id=self.customers[0].tenant_id)


def test_budgets_are_exact_in_any_order(shop: Shop) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("BudgetsHere", (Budgets,), {"shop": shop}),
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def at_once(*tasks: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


class Race:
    """Gateways, a settler and an auditor on two keys with three budgets between them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.customers = two_keys(shop)
        self.over = threading.Event()
        tenant_id = self.customers[0].tenant_id
        with shop.sessions.begin() as session:
            add = partial(budget_terms.create, session, tenant_id=tenant_id)
            add(period="total", limit_p=4 * ONE_HOLD_P, api_key_id=self.customers[0].api_key_id)
            add(period="total", limit_p=6 * ONE_HOLD_P, project_id=self.customers[1].project_id)
            add(period="month", limit_p=9 * ONE_HOLD_P)

    def budgets(self) -> list[budgets.Limit]:
        with self.shop.sessions.begin() as session:
            return budgets.of_tenant(session, tenant_id=self.customers[0].tenant_id)

    def gateway(self, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(25):
            customer = dice.choice(self.customers)
            request = self.shop.request(customer, exact_prompt=True)
            (outcome,) = self.shop.place(request)
            if isinstance(outcome, HoldPlan):
                used = TokenUsage(0, dice.randint(0, 9), 0, 0)
                self.shop.stage(self.shop.trace(customer, request.request_id, used))
            else:
                assert isinstance(outcome, InsufficientBalance)

    def settler(self) -> None:
        while not self.over.is_set():
            with self.shop.sessions.begin() as session:
                settlement.settle(session, 3)

    def auditor(self) -> None:
        while not self.over.is_set():
            assert all(it.available_p >= 0 for it in self.budgets())

    def traffic(self) -> None:
        try:
            at_once(*(partial(self.gateway, seed) for seed in range(4)))
        finally:
            self.over.set()


def test_threads_never_get_beyond_a_budget_or_a_balance(shop: Shop) -> None:
    """Check and count are one step under one lock: no two requests see the same money."""
    race = Race(shop)
    at_once(race.traffic, race.settler, race.auditor)
    shop.settle()
    assert shop.books().violations == []
    of_key, of_project, of_tenant = race.budgets()
    assert [it.held_p for it in (of_key, of_project, of_tenant)] == [0, 0, 0]
    spent_p = BALANCE_P - shop.balance(race.customers[0]).balance_p
    assert of_tenant.spent_p == spent_p == of_key.spent_p + of_project.spent_p > 0


def test_nobody_gets_more_for_asking_at_the_same_time(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    with shop.sessions.begin() as session:
        budget_terms.create(
            session, tenant_id=customer.tenant_id, period="day", limit_p=10 * ONE_HOLD_P
        )
    outcomes: list[object] = []

    def ask() -> None:
        for _ in range(5):
            outcomes.extend(shop.place(shop.request(customer, exact_prompt=True)))

    at_once(*[ask] * 8)
    granted = [outcome for outcome in outcomes if isinstance(outcome, HoldPlan)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceeded)]
    assert (len(granted), len(refused)) == (10, 30)
