"""Settlement on a real database: exact, once, and never blocked by one bad row."""

import random
import uuid

from sqlalchemy import select, update
from support.shop import Customer, Shop, cost_p

from controlplane.accounts import holds, ledger
from controlplane.billing import receipts, settlement
from controlplane.db import uuid7
from controlplane.usage import events
from controlplane.usage.models import StagedUsage, UsageEvent
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(hit_tokens=64, miss_tokens=36, output_tokens=7, reasoning_tokens=2)
BALANCE_P = 10**12


def use(shop: Shop, customer: Customer, usage: TokenUsage = USAGE) -> uuid.UUID:
    """One held and ended request, staged."""
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, usage))
    return request_id


def event(shop: Shop, customer: Customer, request_id: uuid.UUID) -> UsageEvent:
    with shop.sessions.begin() as session:
        return events.get(session, tenant_id=customer.tenant_id, request_id=request_id)


def test_a_request_is_charged_exactly_and_its_hold_ends(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = use(shop, customer)
    assert shop.settle() == 1
    assert event(shop, customer, request_id).charge_p == cost_p(USAGE)
    balance = shop.balance(customer)
    assert (balance.balance_p, balance.held_p) == (BALANCE_P - cost_p(USAGE), 0)
    assert shop.books().violations == []


def test_the_receipt_has_a_line_for_each_class(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = use(shop, customer)
    shop.settle()
    with shop.sessions.begin() as session:
        found = receipts.receipt(session, tenant_id=customer.tenant_id, request_id=request_id)
    lines = {line.token_class: line for line in found.lines}
    assert {name: line.tokens for name, line in lines.items()} == {
        "hit": 64,
        "miss": 36,
        "output": 7,
    }
    assert -sum(line.amount_p for line in found.lines) == found.event.charge_p
    assert lines["miss"].explanation == (
        "36 cache-miss input tokens x 0.14 USD per million = 0.00000504 USD"
    )


def test_an_unused_request_costs_nothing_and_leaves_no_ledger_line(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = use(shop, customer, TokenUsage())
    shop.settle()
    assert event(shop, customer, request_id).charge_p == 0
    with shop.sessions.begin() as session:
        lines = ledger.lines(session, tenant_id=customer.tenant_id, request_id=request_id)
    assert lines == []
    assert shop.balance(customer).available_p == BALANCE_P


def test_an_engine_that_reports_beyond_the_hold_is_capped(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = use(shop, customer, TokenUsage(0, 10**9, 10**9, 0))
    shop.settle()
    settled = event(shop, customer, request_id)
    assert (settled.miss_tokens, settled.output_tokens) == (100, 10)
    assert shop.books().violations == []


def test_staging_again_after_settlement_charges_nothing(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = use(shop, customer)
    shop.settle()
    # As when staging read `usage_events` just before settlement committed.
    with shop.sessions.begin() as session:
        row = _staged_row(shop, customer, request_id)
        session.add(row)
    assert shop.settle() == 1
    assert shop.balance(customer).balance_p == BALANCE_P - cost_p(USAGE)
    assert shop.books().violations == []


def test_a_hold_of_what_was_settled_before_is_not_lost(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = use(shop, customer, TokenUsage())
    shop.settle()
    shop.place(shop.request(customer, request_id=request_id))
    with shop.sessions.begin() as session:
        session.add(_staged_row(shop, customer, request_id))
    shop.settle()
    assert shop.books().violations == []
    shop.close_epoch()
    assert shop.release_dead() == 1
    assert shop.balance(customer).held_p == 0


def _staged_row(shop: Shop, customer: Customer, request_id: uuid.UUID) -> StagedUsage:
    settled = event(shop, customer, request_id)
    names = set(StagedUsage.__table__.c.keys()) & set(UsageEvent.__table__.c.keys())
    return StagedUsage(**{name: getattr(settled, name) for name in names})


def test_a_released_request_is_charged_late_when_covered(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = shop.hold(customer)
    with shop.sessions.begin() as session:
        holds.release(session, [request_id])
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()
    assert shop.balance(customer).balance_p == BALANCE_P - cost_p(USAGE)
    assert shop.books().violations == []


def test_late_requests_never_overdraw_together(shop: Shop) -> None:
    cost = cost_p(TokenUsage(miss_tokens=100))
    customer = shop.customer(4 * cost)
    request_ids = []
    for _ in range(3):
        request_id = shop.hold(customer, max_tokens=1)
        with shop.sessions.begin() as session:
            holds.release(session, [request_id])
        request_ids.append(request_id)
    shop.hold(customer, prompt_tokens=150, max_tokens=1)  # leaves less than three can cost
    for request_id in request_ids:
        shop.stage(shop.trace(customer, request_id, TokenUsage(miss_tokens=100)))
    shop.settle()
    charged = [event(shop, customer, request_id).charge_p for request_id in request_ids]
    assert sorted(charged) == [0, cost, cost]
    assert shop.balance(customer).available_p >= 0
    assert shop.books().violations == []


def test_usage_without_any_hold_is_not_charged(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    request_id = uuid7()
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()
    assert event(shop, customer, request_id).charge_p == 0
    assert shop.balance(customer).balance_p == BALANCE_P


def test_the_price_is_the_one_that_was_held(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    held_at = shop.price
    request_id = shop.hold(customer)
    dearer = Shop(shop.sessions)  # publishes a version of its own
    shop.stage(dearer.trace(customer, request_id, USAGE))
    shop.settle()
    assert event(shop, customer, request_id).price_version_id == held_at.version_id


def test_one_poisoned_row_does_not_hold_up_the_others(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    poisoned, *good = [use(shop, customer) for _ in range(5)]
    with shop.sessions.begin() as session:
        session.execute(
            update(StagedUsage)
            .where(StagedUsage.request_id == poisoned)
            .values(tenant_id=uuid.uuid4())
        )
    assert shop.settle(limit=2) == 5
    for request_id in good:
        assert event(shop, customer, request_id).charge_p == cost_p(USAGE)
    with shop.sessions.begin() as session:
        rejected = session.scalars(select(StagedUsage)).one()
    assert rejected.rejected == "the tenant does not exist"
    assert any(str(poisoned) in violation for violation in shop.books().violations)


def test_a_row_that_came_twice_does_not_hold_up_the_others(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    twice = use(shop, customer)
    shop.settle()
    with shop.sessions.begin() as session:
        session.add(_staged_row(shop, customer, twice))
    for _ in range(3):
        use(shop, customer)
    with shop.sessions.begin() as session:
        assert settlement.settle(session) == 4
        assert settlement.waiting(session) == 0
    assert shop.balance(customer).balance_p == BALANCE_P - 4 * cost_p(USAGE)
    assert shop.balance(customer).held_p == 0


def test_a_row_with_anothers_key_is_rejected_by_the_database(shop: Shop) -> None:
    customer, other = shop.customer(BALANCE_P), shop.customer()
    request_id = uuid7()
    mixed = Customer(customer.tenant_id, other.project_id, other.api_key_id, "")
    shop.stage(shop.trace(mixed, request_id, TokenUsage()))
    shop.settle()
    with shop.sessions.begin() as session:
        assert session.scalars(select(StagedUsage)).one().rejected == "IntegrityError"


def test_many_tenants_settle_in_one_batch(shop: Shop) -> None:
    customers = [shop.customer(BALANCE_P) for _ in range(10)]
    for customer in customers * 3:
        use(shop, customer)
    with shop.sessions.begin() as session:
        assert settlement.settle(session) == 30
    assert {shop.balance(c).balance_p for c in customers} == {BALANCE_P - 3 * cost_p(USAGE)}


def test_replaying_shuffled_three_times_gives_the_same_books(shop: Shop) -> None:
    customer = shop.customer(BALANCE_P)
    usages = [TokenUsage(n, 3 * n, n % 11, 0) for n in range(25)]
    traces = [shop.trace(customer, shop.hold(customer), usage) for usage in usages]
    order = random.Random(7)
    for _ in range(3):
        order.shuffle(traces)
        for trace in traces:
            shop.stage(trace)
            if order.random() < 0.5:
                shop.settle(limit=order.randrange(1, 5))
    shop.settle()
    assert shop.balance(customer).balance_p == BALANCE_P - sum(map(cost_p, usages))
    assert shop.books().violations == []
    assert shop.books().open_holds == 0
