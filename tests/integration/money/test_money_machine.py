"""Any order of top-ups, holds, ends, settlements and releases keeps the books exact."""

import uuid
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from support.shop import MISS_P, Customer, Shop, cost_p

from controlplane.accounts import holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.usage.records import TokenUsage

tokens = st.integers(0, 200)


class Money(RuleBasedStateMachine):
    """Keeps what should be true in plain integers, beside the database."""

    shop: ClassVar[Shop]

    running = Bundle("running")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.customers = [self.shop.customer(), self.shop.customer()]
        self.balance_p = dict.fromkeys(self.customers, 0)
        self.unsettled: dict[uuid.UUID, tuple[Customer, TokenUsage]] = {}

    @rule(who=st.integers(0, 1), amount_p=st.integers(1, 400 * MISS_P))
    def top_up(self, who: int, amount_p: int) -> None:
        self.shop.top_up(self.customers[who], amount_p)
        self.balance_p[self.customers[who]] += amount_p

    @rule(
        target=running,
        who=st.integers(0, 1),
        sizes=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 30)), max_size=4),
        shrinkable=st.booleans(),
    )
    def hold(self, who: int, sizes: list[tuple[int, int]], shrinkable: bool) -> object:
        customer = self.customers[who]
        requests = [
            self.shop.request(
                customer, prompt_tokens=prompt, max_tokens=most, shrinkable=shrinkable
            )
            for prompt, most in sizes
        ]
        if not requests:
            return multiple()
        outcomes = self.shop.place(*requests)
        return multiple(
            *(
                (customer, request.request_id, outcome)
                for request, outcome in zip(requests, outcomes, strict=True)
                if isinstance(outcome, HoldPlan)
            )
        )

    @rule(target=running, request=consumes(running), prompt=st.integers(1, 300))
    def hold_again(self, request: tuple[Customer, uuid.UUID, HoldPlan], prompt: int) -> object:
        customer, request_id, held = request
        again = self.shop.request(
            customer,
            request_id=request_id,
            prompt_tokens=prompt,
            max_tokens=held.completion_tokens,
            exact_prompt=True,
        )
        (outcome,) = self.shop.place(again)
        return customer, request_id, outcome if isinstance(outcome, HoldPlan) else held

    @rule(target=ended, request=consumes(running), hit=tokens, miss=tokens, output=tokens)
    def end(
        self,
        request: tuple[Customer, uuid.UUID, HoldPlan],
        hit: int,
        miss: int,
        output: int,
    ) -> object:
        customer, request_id, held = request
        used = TokenUsage(hit, miss, output, 0)
        self.shop.stage(self.shop.trace(customer, request_id, used))
        hit = min(hit, held.prompt_tokens)
        billed = TokenUsage(
            hit,
            min(miss, held.prompt_tokens - hit),
            min(output, held.completion_tokens),
            0,
        )
        self.unsettled[request_id] = (customer, billed)
        return customer, request_id, used

    @rule(request=ended)
    def stage_again(self, request: tuple[Customer, uuid.UUID, TokenUsage]) -> None:
        customer, request_id, used = request
        self.shop.stage(self.shop.trace(customer, request_id, used))

    @rule(limit=st.integers(1, 5))
    def settle(self, limit: int) -> None:
        self.shop.settle(limit)
        for customer, billed in self.unsettled.values():
            self.balance_p[customer] -= cost_p(billed)
        self.unsettled.clear()

    @rule(request=consumes(running))
    def release(self, request: tuple[Customer, uuid.UUID, HoldPlan]) -> None:
        with self.shop.sessions.begin() as session:
            assert holds.release(session, [request[1]]) == 1

    @invariant()
    def books_are_exact(self) -> None:
        assert self.shop.books().violations == []

    @invariant()
    def nobody_is_overdrawn_and_nobody_is_overcharged(self) -> None:
        for customer in self.customers:
            balance = self.shop.balance(customer)
            assert balance.available_p >= 0
            assert balance.balance_p == self.balance_p[customer]


def test_money_is_exact_in_any_order(shop: Shop) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("MoneyHere", (Money,), {"shop": shop}),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
