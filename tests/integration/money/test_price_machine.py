"""Prices published in any order are looked up as in a naive list, and what is held is paid."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.shop import Customer, Shop

from controlplane.errors import Conflict, ModelNotFound, UnprocessableRequest
from controlplane.pricing import book, calendars
from controlplane.pricing.calendar import WEEKDAYS, Calendar, Window
from controlplane.pricing.drafts import Draft, Rates
from controlplane.pricing.rating import Price
from controlplane.pricing.snapshot import PriceBook
from controlplane.usage.records import TokenUsage

ZONE = "Europe/Berlin"
DAY = frozenset(WEEKDAYS)
# Later than any clock: what is published there is in nobody's past.
START = datetime(2040, 3, 24, 22, tzinfo=UTC)
slots = st.integers(0, 12)


def moment(slot: int) -> datetime:
    """Slots of six hours and a half, over a night in which clocks are set."""
    return START + slot * timedelta(hours=6, minutes=30)


def naive_band(at: datetime) -> str:
    """The band of the machine's calendar: by day in Berlin, eight to twenty, it is peak."""
    return "peak" if 8 <= at.astimezone(ZoneInfo(ZONE)).hour < 20 else "off"


class Book(RuleBasedStateMachine):
    """Keeps every published version in a plain list, beside the database."""

    shop: ClassVar[Shop]
    customers: ClassVar[list[Customer]]
    calendar: ClassVar[Calendar]

    @initialize()
    def begin(self) -> None:
        # A model of this run alone, so that runs share one database.
        self.model = f"m-{uuid.uuid4()}"
        self.published: list[tuple[int | None, datetime, dict[str, Rates]]] = []
        with self.shop.sessions.begin() as session:
            self.snapshot: PriceBook = book.current(session)

    @rule(
        who=st.sampled_from([None, 0, 1]),
        slot=slots,
        kind=st.sampled_from(["flat", "banded", "end"]),
        rate=st.integers(0, 10**9),
    )
    def publish(self, who: int | None, slot: int, kind: str, rate: int) -> None:
        rates = {
            "flat": {"standard": Rates(0, rate, rate, rate)},
            "banded": {"off": Rates(1, rate + 1, 3, 4), "peak": Rates(5, rate + 5, 7, 8)},
            "end": {},
        }[kind]
        draft = Draft(
            model=self.model,
            rates=rates,
            tenant_id=None if who is None else self.customers[who].tenant_id,
            calendar=self.calendar if kind == "banded" else None,
            effective_from=moment(slot),
        )
        taken = (who, moment(slot)) in [(it[0], it[1]) for it in self.published]
        senseless = not rates and who not in [it[0] for it in self.published]
        refused: type[Exception] | None = None
        try:
            with self.shop.sessions.begin() as session:
                book.publish_all(session, [draft])
        except (Conflict, UnprocessableRequest) as error:
            refused = type(error)
        if not rates and (who is None or senseless):
            assert refused is UnprocessableRequest
        elif taken:
            assert refused is Conflict
        else:
            assert refused is None
            self.published.append((who, moment(slot), rates))

    @rule()
    def refresh(self) -> None:
        with self.shop.sessions.begin() as session:
            self.snapshot = book.refreshed(session, self.snapshot)
            anew = book.current(session)
        for slot in range(13):
            for who in (None, 0, 1):
                found = self._found(self.snapshot, who, moment(slot))
                assert found == self._found(anew, who, moment(slot))
                assert found == self._expected(who, moment(slot))

    @rule(slot=slots, offset_minutes=st.integers(0, 500), who=st.sampled_from([None, 0, 1]))
    def look_up(self, slot: int, offset_minutes: int, who: int | None) -> None:
        at = moment(slot) + timedelta(minutes=offset_minutes)
        with self.shop.sessions.begin() as session:
            tenant_id = None if who is None else self.customers[who].tenant_id
            found = book.current_for(session, tenant_id)
        assert self._found(found, who, at) == self._expected(who, at)

    @rule(
        slot=slots,
        who=st.integers(0, 1),
        usage=st.builds(TokenUsage, *(st.integers(0, 30) for _ in range(3)), st.just(0)),
    )
    def sell(self, slot: int, who: int, usage: TokenUsage) -> None:
        """Whatever is published between a hold and its settlement, the hold's rates are paid."""
        customer = self.customers[who]
        with self.shop.sessions.begin() as session:
            found = book.current(session)
        try:
            self.shop.price = found.price(
                self.model, "serverless", moment(slot), customer.tenant_id
            )
        except ModelNotFound:
            return
        before_p = self.shop.balance(customer).balance_p
        request_id = self.shop.hold(customer, prompt_tokens=60, max_tokens=30)
        self.publish(who, slot, "banded", 10**9)
        self.shop.stage(self.shop.trace(customer, request_id, usage))
        self.shop.settle()
        paid_p = before_p - self.shop.balance(customer).balance_p
        assert paid_p == naive_cost_p(self.shop.price, usage)

    @invariant()
    def books_are_exact(self) -> None:
        assert self.shop.books().violations == []

    def _found(self, found: PriceBook, who: int | None, at: datetime) -> tuple[str, Rates] | None:
        tenant_id = None if who is None else self.customers[who].tenant_id
        try:
            it = found.price(self.model, "serverless", at, tenant_id)
        except ModelNotFound:
            return None
        return it.band, Rates(it.hit_rate_p, it.miss_rate_p, it.output_rate_p, it.request_rate_p)

    def _expected(self, who: int | None, at: datetime) -> tuple[str, Rates] | None:
        for whose in (who, None):
            begun = [it for it in self.published if it[0] == whose and it[1] <= at]
            if not begun:
                continue
            rates = max(begun, key=lambda it: it[1])[2]
            if rates:
                band = "standard" if "standard" in rates else naive_band(at)
                return band, rates[band]
        return None


def naive_cost_p(price: Price, usage: TokenUsage) -> int:
    """The sum of tokens x rate, and the request's own price when it used any."""
    total = usage.hit_tokens * price.hit_rate_p + usage.miss_tokens * price.miss_rate_p
    total += usage.output_tokens * price.output_rate_p
    used = usage.hit_tokens or usage.miss_tokens or usage.output_tokens
    return total + (price.request_rate_p if used else 0)


@pytest.fixture
def calendar(shop: Shop) -> Calendar:
    with shop.sessions.begin() as session:
        row = calendars.create(
            session,
            name="day",
            time_zone=ZONE,
            default_band="off",
            windows=[Window("peak", DAY, 8 * 60, 20 * 60)],
        )
    return calendars.as_calendar(row)


def walk(shop: Shop, calendar: Calendar, *, examples: int, steps: int) -> None:
    """Take the machine's random walks."""
    customers = [shop.customer(10**18), shop.customer(10**18)]
    here = {"shop": shop, "customers": customers, "calendar": calendar}
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("BookHere", (Book,), here),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_book_says_what_a_list_says(shop: Shop, calendar: Calendar) -> None:
    walk(shop, calendar, examples=25, steps=20)


@pytest.mark.storm
def test_the_book_says_what_a_list_says_for_long(shop: Shop, calendar: Calendar) -> None:
    walk(shop, calendar, examples=150, steps=40)
