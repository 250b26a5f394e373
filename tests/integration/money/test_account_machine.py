"""Any order of what moves an account, against plain arithmetic in dictionaries.

Everything that a tenant, an admin and a gateway do to an account: top-ups, grants, payments, holds,
settlements, refunds, adjustments, terms. After each step balance, given money and holds are what
the oracle says, and the books are exact.
"""

import uuid
from collections.abc import Callable
from typing import ClassVar

import pytest
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
from sqlalchemy import select
from sqlalchemy.orm import Session
from support.shop import MISS_P, Customer, Shop, cost_p

from controlplane.accounts import corrections, holds, payments, terms
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.corrections import BackKind
from controlplane.accounts.models import LedgerTransaction
from controlplane.errors import Conflict, InsufficientBalance
from controlplane.usage.records import TokenUsage

who = st.integers(0, 1)
amounts = st.integers(1, 300 * MISS_P)
TOLD = {"reason": "r", "author": "a"}


class Oracle:
    """One account in plain integers."""

    def __init__(self) -> None:
        self.balance_p = self.granted_p = self.limit_p = 0
        self.holds: dict[uuid.UUID, int] = {}

    @property
    def held_p(self) -> int:
        return sum(self.holds.values())

    @property
    def free_p(self) -> int:
        return self.balance_p + self.limit_p - self.held_p

    def spend(self, amount_p: int) -> int:
        """Take an amount, given money first; return how much of it was given."""
        given_p = min(self.granted_p, amount_p)
        self.balance_p -= amount_p
        self.granted_p -= given_p
        return given_p


class Charge:
    """A settled request: what it took, and what of it was given, came back, came back given."""

    def __init__(self, owner: int, transaction_id: uuid.UUID, amount_p: int, given_p: int) -> None:
        self.owner, self.id = owner, transaction_id
        self.amount_p, self.given_p = amount_p, given_p
        self.back_p = self.back_given_p = 0


class Accounts(RuleBasedStateMachine):
    """Two tenants who do everything to their accounts."""

    shop: ClassVar[Shop]

    running = Bundle("running")
    charges = Bundle("charges")

    def __init__(self) -> None:
        super().__init__()
        self.customers: list[Customer] = [self.shop.customer(), self.shop.customer()]
        self.oracles = [Oracle(), Oracle()]
        self.ended: list[tuple[int, uuid.UUID, TokenUsage]] = []

    def do(self, owner: int, act: Callable[..., object], **terms_of_it: object) -> None:
        with self.shop.sessions.begin() as session:
            act(session, tenant_id=self.customers[owner].tenant_id, **terms_of_it)

    @rule(owner=who, amount_p=amounts)
    def top_up(self, owner: int, amount_p: int) -> None:
        self.shop.top_up(self.customers[owner], amount_p)
        self.oracles[owner].balance_p += amount_p

    @rule(owner=who, amount_p=amounts)
    def grant(self, owner: int, amount_p: int) -> None:
        self.do(owner, corrections.grant, amount_p=amount_p, **TOLD)
        self.oracles[owner].balance_p += amount_p
        self.oracles[owner].granted_p += amount_p

    @rule(owner=who, amount_p=amounts, tax_percent=st.integers(0, 100))
    def pay(self, owner: int, amount_p: int, tax_percent: int) -> None:
        tax_p = amount_p * tax_percent // 100
        self.do(owner, payments.pay, amount_p=amount_p, tax_p=tax_p, **TOLD)
        self.oracles[owner].balance_p += amount_p - tax_p

    @rule(owner=who, amount_p=amounts, deduct=st.booleans())
    def adjust(self, owner: int, amount_p: int, deduct: bool) -> None:
        oracle = self.oracles[owner]
        if not deduct:
            self.do(owner, corrections.adjust, amount_p=amount_p, **TOLD)
            oracle.balance_p += amount_p
        elif amount_p <= oracle.free_p:
            self.do(owner, corrections.adjust, amount_p=-amount_p, **TOLD)
            oracle.spend(amount_p)
        else:
            with pytest.raises(InsufficientBalance):
                self.do(owner, corrections.adjust, amount_p=-amount_p, **TOLD)

    @rule(owner=who, limit_p=st.integers(0, 200 * MISS_P))
    def set_terms(self, owner: int, limit_p: int) -> None:
        oracle = self.oracles[owner]
        wanted = {"terms": "postpaid" if limit_p else "prepaid", "credit_limit_p": limit_p}
        if oracle.held_p - oracle.balance_p <= limit_p:
            self.do(owner, terms.set_terms, **wanted)
            oracle.limit_p = limit_p
        else:
            with pytest.raises(Conflict):
                self.do(owner, terms.set_terms, **wanted)

    @rule(target=running, sizes=st.lists(st.tuples(who, st.integers(1, 100)), max_size=3))
    def hold(self, sizes: list[tuple[int, int]]) -> object:
        """A batch of requests of both tenants; each that is covered when its turn comes runs."""
        asked = [
            (
                owner,
                self.shop.request(
                    self.customers[owner], prompt_tokens=prompt, max_tokens=1, exact_prompt=True
                ),
            )
            for owner, prompt in sizes
        ]
        outcomes = self.shop.place(*(request for _, request in asked)) if asked else []
        placed = []
        for (owner, request), outcome in zip(asked, outcomes, strict=True):
            oracle = self.oracles[owner]
            needed_p = cost_p(TokenUsage(0, request.prompt_tokens, 1, 0))
            assert isinstance(outcome, HoldPlan) == (needed_p <= oracle.free_p)
            if isinstance(outcome, HoldPlan):
                oracle.holds[request.request_id] = needed_p
                placed.append((owner, request.request_id, request.prompt_tokens))
        return multiple(*placed)

    @rule(request=consumes(running), share=st.fractions(0, 1))
    def end(self, request: tuple[int, uuid.UUID, int], share: float) -> None:
        owner, request_id, prompt = request
        usage = TokenUsage(0, int(share * prompt), 1, 0)
        self.shop.stage(self.shop.trace(self.customers[owner], request_id, usage))
        self.ended.append((owner, request_id, usage))

    @rule(request=consumes(running))
    def release(self, request: tuple[int, uuid.UUID, int]) -> None:
        with self.shop.sessions.begin() as session:
            holds.release(session, [request[1]])
        del self.oracles[request[0]].holds[request[1]]

    @rule(target=charges, batch=st.integers(1, 3))
    def settle(self, batch: int) -> object:
        self.shop.settle(batch)
        made = []
        with self.shop.sessions.begin() as session:
            for owner, request_id, usage in self.ended:
                oracle, amount_p = self.oracles[owner], cost_p(usage)
                del oracle.holds[request_id]
                given_p = oracle.spend(amount_p)
                made.append(Charge(owner, charge_of(session, request_id), amount_p, given_p))
        self.ended.clear()
        return multiple(*made)

    @rule(
        charge=charges,
        share=st.fractions(0, 1),
        kind=st.sampled_from(("refund", "credit_note", "waiver")),
        excess=st.booleans(),
    )
    def give_back(self, charge: Charge, share: float, kind: BackKind, excess: bool) -> None:
        left_p = charge.amount_p - charge.back_p
        amount_p = left_p + 1 if excess else int(share * left_p)
        if amount_p == 0:
            return
        back = {"kind": kind, "amount_p": amount_p, "corrects_id": charge.id, **TOLD}
        if excess:
            with pytest.raises(Conflict):
                self.do(charge.owner, corrections.give_back, **back)
            return
        self.do(charge.owner, corrections.give_back, **back)
        charge.back_p += amount_p
        given_p = charge.given_p * charge.back_p // charge.amount_p - charge.back_given_p
        charge.back_given_p += given_p
        self.oracles[charge.owner].balance_p += amount_p
        self.oracles[charge.owner].granted_p += given_p

    @invariant()
    def accounts_are_as_the_oracle_says(self) -> None:
        for customer, oracle in zip(self.customers, self.oracles, strict=True):
            balance = self.shop.balance(customer)
            assert balance.balance_p == oracle.balance_p
            assert balance.granted_p == oracle.granted_p
            assert balance.held_p == oracle.held_p
            assert balance.available_p == oracle.free_p >= 0

    @invariant()
    def books_are_exact(self) -> None:
        assert self.shop.books().violations == []


def charge_of(session: Session, request_id: uuid.UUID) -> uuid.UUID:
    found = select(LedgerTransaction.id).where(LedgerTransaction.request_id == request_id)
    return session.scalars(found).one()


def check(shop: Shop, *, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("AccountsHere", (Accounts,), {"shop": shop}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_an_account_is_exact_in_any_order(shop: Shop) -> None:
    check(shop, examples=8, steps=25)


@pytest.mark.storm
@pytest.mark.timeout(3600)
def test_an_account_is_exact_in_any_order_for_long(shop: Shop) -> None:
    check(shop, examples=300, steps=60)
