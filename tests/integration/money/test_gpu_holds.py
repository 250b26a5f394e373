"""Any order of lives, requests, top-ups, rounds and crashes: what runs holds its next minutes.

Two tenants with replicas and volumes on a clock of their own. The oracle is plain arithmetic of
what was proven, what came in and what requests cost.
"""

import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.orm import Session
from support.gpu_meter import RATE_P, START, Meter
from support.shop import MISS_P, Shop, cost_p

from controlplane.accounts import holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.billing.gpu import intervals, volumes
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.registry.volumes import Volume
from controlplane.usage.records import TokenUsage

AHEAD_MS = 180_000
VOLUME_AHEAD_MS = 3_600_000 + 120_000
MINUTE_P = RATE_P // 60
GIB_P, GIB = 137_000_019, 7
GONE = "fp-t/gone"
who = st.integers(0, 1)


@dataclass
class Life:
    """A replica or a volume: what it should cost, and from when until when it was seen."""

    owner: int
    uid: uuid.UUID
    spot: bool
    is_volume: bool
    began_ms: int
    until_ms: int
    proven_ms: int = 0
    ended: bool = False

    @property
    def rate_p(self) -> int:
        return GIB_P * GIB if self.is_volume else RATE_P // 3 if self.spot else RATE_P

    @property
    def wanted_p(self) -> int:
        ahead_ms = VOLUME_AHEAD_MS if self.is_volume else AHEAD_MS
        return (self.rate_p * ahead_ms + 3_599_999) // 3_600_000


class Crash(Exception):
    """The process died before its commit."""


class Holding(RuleBasedStateMachine):
    """Two tenants whose replicas, volumes and requests share their money."""

    meter: ClassVar[Meter]

    alive = Bundle("alive")
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.shop = self.meter.shop
        self.customers = [self.shop.customer(), self.shop.customer()]
        self.came_in_p, self.tokens_p, self.held_p = [0, 0], [0, 0], [0, 0]
        self.lives: list[Life] = []
        self.now_ms = 0

    @rule(owner=who, minutes=st.integers(1, 20), more_p=st.integers(0, 10**9))
    def top_up(self, owner: int, minutes: int, more_p: int) -> None:
        amount_p = minutes * MINUTE_P + more_p
        self.shop.top_up(self.customers[owner], amount_p)
        self.came_in_p[owner] += amount_p

    @rule(target=alive, owner=who, spot=st.booleans(), is_volume=st.booleans())
    def begin(self, owner: int, spot: bool, is_volume: bool) -> Life:
        life = Life(owner, uuid.uuid4(), spot, is_volume, self.now_ms, self.now_ms)
        self.lives.append(life)
        return life

    @rule(ms=st.integers(1, 250_000), seen=st.booleans())
    def time_goes_by(self, ms: int, seen: bool) -> None:
        """While nobody sees the lives, nothing is proven; the next proof tells of it all."""
        self.now_ms += ms
        if seen:
            self.see([it for it in self.lives if not it.ended])

    @rule(life=consumes(alive), ms=st.integers(0, 90_000))
    def end(self, life: Life, ms: int) -> None:
        self.now_ms += ms
        life.ended = True
        self.see([life])

    @rule(target=running, owner=who, share=st.fractions(0, 2))
    def ask(self, owner: int, share: float) -> tuple[int, uuid.UUID, int]:
        """A request for some of what is free, or for more than there is."""
        free_p = self.shop.balance(self.customers[owner]).available_p
        prompt = min(1_000_000, 1 + int(share * free_p) // MISS_P)
        request = self.shop.request(
            self.customers[owner], prompt_tokens=prompt, max_tokens=1, exact_prompt=True
        )
        (outcome,) = self.shop.place(request)
        needed_p = cost_p(TokenUsage(0, prompt, 1, 0))
        assert isinstance(outcome, HoldPlan) == (needed_p <= free_p)
        if not isinstance(outcome, HoldPlan):
            return owner, request.request_id, 0
        self.held_p[owner] += needed_p
        return owner, request.request_id, prompt

    @rule(request=consumes(running), used=st.booleans())
    def answer(self, request: tuple[int, uuid.UUID, int], used: bool) -> None:
        owner, request_id, prompt = request
        if not prompt:
            return
        self.held_p[owner] -= cost_p(TokenUsage(0, prompt, 1, 0))
        if used:
            usage = TokenUsage(0, prompt // 2, 1, 0)
            self.shop.stage(self.shop.trace(self.customers[owner], request_id, usage))
            self.shop.settle()
            self.tokens_p[owner] += cost_p(usage)
        else:
            with self.shop.sessions.begin() as session:
                holds.release(session, [request_id])

    @rule()
    def bill(self) -> None:
        """Whole rounds until nothing is due: what lives holds all it should, or all there is."""
        before = [self.rows(owner) for owner in (0, 1)]
        covered = [self.owed_p(rows) <= self.there_p(owner) for owner, rows in enumerate(before)]
        self.charge()
        for owner, rows in enumerate(before):
            after = self.rows(owner)
            if covered[owner]:
                assert [it.waived_p for it in after] == [it.waived_p for it in rows]
            self.check_holds(owner)

    @rule()
    def crash(self) -> None:
        def state() -> list[object]:
            return [self.shop.balance(it) for it in self.customers]

        before = state()
        for charge in (intervals.charge, volumes.charge):
            with suppress(Crash), self.shop.sessions.begin() as session:
                charge(session, self.at())
                raise Crash
        assert state() == before

    @invariant()
    def books_are_exact(self) -> None:
        assert self.shop.books().violations == []

    @invariant()
    def money_is_what_came_in_less_time_and_tokens(self) -> None:
        for owner, customer in enumerate(self.customers):
            rows, balance = self.rows(owner), self.shop.balance(customer)
            time_p = sum(it.rate_p_per_hour * it.billed_ms // 3_600_000 for it in rows)
            paid_p = time_p - sum(it.waived_p for it in rows)
            assert balance.balance_p == self.came_in_p[owner] - self.tokens_p[owner] - paid_p
            assert balance.held_p == self.held_p[owner] + sum(it.held_p for it in rows)
            assert balance.available_p >= 0

    def teardown(self) -> None:
        """All lives end and are billed to the last millisecond; nothing stays held for them."""
        living = [it for it in self.lives if not it.ended]
        for life in living:
            life.ended = True
        self.see(living)
        self.now_ms += 10 * AHEAD_MS + VOLUME_AHEAD_MS
        self.charge()
        for owner, customer in enumerate(self.customers):
            lives = {it.uid: it for it in self.lives if it.owner == owner}
            for row in self.rows(owner):
                life = lives[row.id]
                assert row.billed_ms == row.proven_ms == life.proven_ms
                assert row.billed_p + row.waived_p == life.rate_p * life.proven_ms // 3_600_000
            assert self.shop.balance(customer).held_p == self.held_p[owner]
        self.books_are_exact()
        self.money_is_what_came_in_less_time_and_tokens()

    def at(self) -> datetime:
        return datetime.fromtimestamp(START + self.now_ms / 1000, UTC)

    def see(self, lives: list[Life]) -> None:
        for life in lives:
            life.proven_ms += self.now_ms - life.until_ms
            life.until_ms = self.now_ms
        with self.shop.sessions.begin() as session:
            leases = [self.proof(it) for it in lives if not it.is_volume]
            intervals.extend(session, leases, self.at())
            disks = [self.disk(it) for it in lives if it.is_volume]
            volumes.extend(session, disks, self.at())

    def charge(self) -> None:
        for charge in (intervals.charge, volumes.charge):
            while self.once(charge):
                pass

    def once(self, charge: object) -> int:
        with self.shop.sessions.begin() as session:
            return charge(session, self.at(), ahead_ms=AHEAD_MS)  # type: ignore[operator]

    def rows(self, owner: int) -> list[GpuInterval | VolumeInterval]:
        with self.shop.sessions.begin() as session:
            return [
                row
                for life in self.lives
                if life.owner == owner and (row := _row(session, life)) is not None
            ]

    def owed_p(self, rows: list[GpuInterval | VolumeInterval]) -> int:
        """What all that is proven and not charged costs at most."""
        return sum(
            -(-it.rate_p_per_hour * (it.proven_ms - it.billed_ms) // 3_600_000) for it in rows
        )

    def there_p(self, owner: int) -> int:
        """What what runs may spend: all but what is held for requests."""
        balance = self.shop.balance(self.customers[owner])
        return balance.balance_p - self.held_p[owner]

    def check_holds(self, owner: int) -> None:
        is_short = self.shop.balance(self.customers[owner]).available_p == 0
        lives = {it.uid: it for it in self.lives}
        for row in self.rows(owner):
            life = lives[row.id]
            if row.ended_at is None and life.until_ms > self.now_ms - AHEAD_MS:
                assert row.held_p == life.wanted_p or (is_short and row.held_p < life.wanted_p)
            elif row.billed_ms == row.proven_ms:
                assert row.held_p == 0

    def proof(self, life: Life) -> object:
        began, until = life.began_ms / 1000, life.until_ms / 1000
        tenant_id = str(self.customers[life.owner].tenant_id)
        return self.meter.proof(
            *(life.uid, began, until),
            **{"spot": life.spot, "tenant_id": tenant_id, "deployment": GONE, "ended": life.ended},
        )

    def disk(self, life: Life) -> Volume:
        return Volume(
            uid=str(life.uid),
            claim="dev-volume",
            deployment=GONE,
            tenant_id=str(self.customers[life.owner].tenant_id),
            storage_class="",
            size_gib=GIB,
            alive_since=START + life.began_ms / 1000,
            published_at=START + life.until_ms / 1000,
            ended=life.ended,
        )


def _row(session: Session, life: Life) -> GpuInterval | VolumeInterval | None:
    return session.get(VolumeInterval if life.is_volume else GpuInterval, life.uid)


def check(shop: Shop, *, examples: int, steps: int) -> None:
    meter = Meter(shop, shop.customer())
    meter.publish_price(RATE_P // 3, kind="spot")
    meter.publish_volume_price(GIB_P)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("HoldingHere", (Holding,), {"meter": meter}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_runs_holds_its_next_minutes_in_any_order(shop: Shop) -> None:
    check(shop, examples=6, steps=25)


@pytest.mark.storm
@pytest.mark.timeout(3600)
def test_what_runs_holds_its_next_minutes_in_any_order_for_long(shop: Shop) -> None:
    check(shop, examples=300, steps=60)
