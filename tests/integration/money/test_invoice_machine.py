"""Any amounts and any schedule of the jobs, crashes and all, against plain arithmetic."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support.invoicing import SELLER, final, run, use
from support.shop import Customer, Shop

from controlplane.billing.invoices import documents, lifecycle, months
from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.models import P_PER_CENT

BEGIN = datetime(2020, 1, 10, tzinfo=UTC)


@dataclass(eq=False)
class Use:
    """A charge as the oracle knows it."""

    month: date
    amount_p: int


class Months(RuleBasedStateMachine):
    """Two tenants use; the clock and the jobs do as they like; uses are kept in plain lists."""

    shop: ClassVar[Shop]

    def __init__(self) -> None:
        super().__init__()
        self.customers = [self.shop.customer(10**15), self.shop.customer(10**15)]
        self.uninvoiced: dict[Customer, list[Use]] = {who: [] for who in self.customers}
        self.carried_p = dict.fromkeys(self.customers, 0)
        self.known: dict[Customer, list[Document]] = {who: [] for who in self.customers}
        self.now = BEGIN
        self.do("begin")

    @rule(
        who=st.integers(0, 1),
        amount_p=st.integers(1, 3 * P_PER_CENT),
        days_ago=st.integers(0, 70),
    )
    def charge(self, who: int, amount_p: int, days_ago: int) -> None:
        moment = max(BEGIN, self.now - timedelta(days=days_ago))
        use(self.shop, self.customers[who], amount_p, moment)
        self.uninvoiced[self.customers[who]].append(Use(months.month_of(moment), amount_p))

    @rule(hours=st.integers(1, 50 * 24))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(step=st.sampled_from(["begin", "end", "finish"]), crash=st.booleans())
    def tick(self, step: str, crash: bool) -> None:
        self.do(step, crash)

    @rule()
    def all_ticks(self) -> None:
        run(self.shop.sessions, self.now)
        self.check()

    def do(self, step: str, crash: bool = False) -> None:
        with self.shop.sessions() as session:
            if step == "begin":
                lifecycle.begin_months(session, self.now)
            elif step == "end":
                lifecycle.end_months(session, self.now)
            else:
                lifecycle.finish_next(session, self.now, SELLER)
            if crash:
                session.rollback()
            else:
                session.commit()
        self.check()

    def check(self) -> None:
        """Hold every new final invoice against what its tenant used and was not billed."""
        for who in self.customers:
            found = final(self.shop.sessions, who.tenant_id)
            known = self.known[who]
            assert [str(it.invoice.hash) for it in found[: len(known)]] == [
                str(it.invoice.hash) for it in known
            ]
            for document in found[len(known) :]:
                self.check_new(who, document)
                known.append(document)

    def check_new(self, who: Customer, document: Document) -> None:
        invoice = document.invoice
        assert months.end(invoice.month) + timedelta(hours=24) <= self.now
        on_it = [it for it in self.uninvoiced[who] if it.month <= invoice.month]
        self.uninvoiced[who] = [it for it in self.uninvoiced[who] if it.month > invoice.month]
        exact_p = self.carried_p[who] + sum(it.amount_p for it in on_it)
        assert on_it
        assert invoice.total_cents == exact_p // P_PER_CENT
        assert invoice.carried_out_p == exact_p % P_PER_CENT
        self.carried_p[who] = exact_p % P_PER_CENT
        told: dict[date, int] = {}
        for line in document.lines:
            if line.section == "sale":
                assert line.late == (line.month < invoice.month)
                told[line.month] = told.get(line.month, 0) + line.amount_p
        assert told == {
            month: sum(it.amount_p for it in on_it if it.month == month)
            for month in {it.month for it in on_it}
        }
        assert invoice.hash == documents.digest(document)

    def teardown(self) -> None:
        """In the end everything is on some invoice."""
        self.now += timedelta(days=100)
        self.all_ticks()
        assert not any(self.uninvoiced.values())
        assert self.shop.books().violations == []


def _run(shop: Shop, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("MonthsHere", (Months,), {"shop": shop}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_invoices_are_exact_in_any_order(shop: Shop) -> None:
    _run(shop, examples=10, steps=20)


@pytest.mark.storm
def test_invoices_are_exact_in_any_order_for_long(shop: Shop) -> None:
    _run(shop, examples=150, steps=40)
