"""Budgets on a real database: what they refuse, what they count, and what they tell."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update
from support.shop import MISS_P, OUTPUT_P, Customer, Shop, cost_p

from controlplane.accounts import budgets, funds, holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.limits import Limit, Period
from controlplane.accounts.models import Budget
from controlplane.billing import budget_terms
from controlplane.db import uuid7
from controlplane.errors import BudgetExceeded, Conflict, InsufficientBalance, NotFound
from controlplane.tenants import keys
from controlplane.usage.records import TokenUsage
from controlplane.webhooks.models import WebhookNotice

ONE_HOLD_P = 100 * MISS_P + 10 * OUTPUT_P
USAGE = TokenUsage(0, 100, 10, 0)


def set_budget(
    shop: Shop, customer: Customer, limit_p: int, period: Period = "month", **scope: uuid.UUID
) -> Limit:
    with shop.sessions.begin() as session:
        return budget_terms.create(
            session, tenant_id=customer.tenant_id, period=period, limit_p=limit_p, **scope
        )


def the_budget(shop: Shop, customer: Customer) -> Limit:
    with shop.sessions.begin() as session:
        (limit,) = budgets.of_tenant(session, tenant_id=customer.tenant_id)
    return limit


def use(shop: Shop, customer: Customer) -> None:
    shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
    shop.settle()


def another_key(shop: Shop, customer: Customer) -> Customer:
    with shop.sessions.begin() as session:
        key, token = keys.issue(session, b"pepper", tenant_id=customer.tenant_id, name="other")
        return Customer(customer.tenant_id, key.project_id, key.id, token)


def test_a_budget_is_as_hard_as_a_balance(shop: Shop) -> None:
    customer = shop.customer(10**12)
    set_budget(shop, customer, 2 * ONE_HOLD_P)
    outcomes = shop.place(*(shop.request(customer, exact_prompt=True) for _ in range(3)))
    assert [type(outcome) for outcome in outcomes] == [HoldPlan, HoldPlan, BudgetExceeded]
    assert the_budget(shop, customer).available_p == 0
    assert shop.books().violations == []


def rotated(shop: Shop, customer: Customer) -> Customer:
    with shop.sessions.begin() as session:
        old = keys.get(session, key_id=customer.api_key_id, to_change=True)
        key, token = keys.rotate(session, b"pepper", key=old, overlap=timedelta(hours=1))
        return Customer(customer.tenant_id, key.project_id, key.id, token)


def test_keys_of_one_line_share_one_budget(shop: Shop) -> None:
    first = shop.customer(10**12)
    set_budget(shop, first, 3 * ONE_HOLD_P, api_key_id=first.api_key_id)
    use(shop, first)
    second = rotated(shop, first)
    third = rotated(shop, second)
    shop.hold(second)
    outcomes = shop.place(
        *(shop.request(who, exact_prompt=True) for who in (third, first, second)),
    )
    assert [type(outcome) for outcome in outcomes] == [HoldPlan, BudgetExceeded, BudgetExceeded]
    assert the_budget(shop, first).available_p == 0
    assert shop.books().violations == []


def test_a_budget_of_a_key_that_took_over_counts_what_the_line_spent(shop: Shop) -> None:
    first = shop.customer(10**12)
    use(shop, first)
    second = rotated(shop, first)
    shop.hold(first)
    limit = set_budget(shop, second, 10 * ONE_HOLD_P, api_key_id=second.api_key_id)
    assert (limit.api_key_id, limit.spent_p) == (first.api_key_id, cost_p(USAGE))
    assert limit.held_p > 0
    with pytest.raises(Conflict):
        set_budget(shop, first, 1, api_key_id=first.api_key_id)
    assert shop.books().violations == []


def test_a_refusal_names_the_budget_and_when_it_renews(shop: Shop) -> None:
    customer = shop.customer(10**12)
    budget = set_budget(shop, customer, 10**6, api_key_id=customer.api_key_id)
    (refusal,) = shop.place(shop.request(customer, exact_prompt=True))
    assert isinstance(refusal, BudgetExceeded)
    assert (refusal.status, refusal.code) == (402, "budget_exceeded")
    assert f"monthly budget of this key ({customer.api_key_id})" in refusal.message
    assert "0.000001 USD" in refusal.message
    assert budget.renews_at is not None
    assert f"{budget.renews_at:%Y-%m-%dT00:00:00Z}" in refusal.message


def test_where_the_balance_is_the_tighter_one_the_refusal_says_so(shop: Shop) -> None:
    customer = shop.customer(1)
    set_budget(shop, customer, 2)
    (refusal,) = shop.place(shop.request(customer))
    assert type(refusal) is InsufficientBalance


def test_an_output_left_open_shrinks_to_what_the_budget_covers(shop: Shop) -> None:
    customer = shop.customer(10**12)
    set_budget(shop, customer, 100 * MISS_P + 3 * OUTPUT_P)
    (outcome,) = shop.place(shop.request(customer, exact_prompt=True, shrinkable=True))
    assert outcome == HoldPlan(100, 3, 100 * MISS_P + 3 * OUTPUT_P)


def test_a_keys_budget_leaves_the_tenants_other_keys_alone(shop: Shop) -> None:
    customer = shop.customer(10**12)
    other = another_key(shop, customer)
    set_budget(shop, customer, 0, api_key_id=customer.api_key_id)
    outcomes = shop.place(shop.request(customer), shop.request(other))
    assert [type(outcome) for outcome in outcomes] == [BudgetExceeded, HoldPlan]


def test_keys_of_one_project_share_its_budget(shop: Shop) -> None:
    customer = shop.customer(10**12)
    other = another_key(shop, customer)
    set_budget(shop, customer, ONE_HOLD_P, project_id=customer.project_id)
    outcomes = shop.place(shop.request(customer), shop.request(other))
    assert [type(outcome) for outcome in outcomes] == [HoldPlan, BudgetExceeded]


def test_holding_again_gives_the_budget_its_first_hold_back(shop: Shop) -> None:
    customer = shop.customer(10**12)
    set_budget(shop, customer, ONE_HOLD_P)
    request = shop.request(customer)
    assert shop.place(request) == shop.place(request)
    assert the_budget(shop, customer).held_p == ONE_HOLD_P


def test_settlement_turns_what_is_held_into_what_is_spent(shop: Shop) -> None:
    customer = shop.customer(10**12)
    set_budget(shop, customer, 10**9)
    use(shop, customer)
    it = the_budget(shop, customer)
    assert (it.held_p, it.spent_p) == (0, cost_p(USAGE))


def test_a_released_hold_is_given_back_to_the_budget(shop: Shop) -> None:
    customer = shop.customer(10**12)
    set_budget(shop, customer, ONE_HOLD_P)
    request_id = shop.hold(customer)
    with shop.sessions.begin() as session:
        holds.release(session, [request_id])
    assert the_budget(shop, customer).available_p == ONE_HOLD_P


@pytest.mark.parametrize("scope", ["tenant", "project", "key"])
def test_a_new_budget_knows_what_is_spent_and_held(shop: Shop, scope: str) -> None:
    customer = shop.customer(10**12)
    use(shop, customer)
    shop.hold(customer)
    of = {
        "tenant": {},
        "project": {"project_id": customer.project_id},
        "key": {"api_key_id": customer.api_key_id},
    }
    it = set_budget(shop, customer, 10**9, **of[scope])
    assert (it.spent_p, it.held_p) == (cost_p(USAGE), ONE_HOLD_P)
    assert shop.books().violations == []


def test_a_new_total_budget_begins_at_zero(shop: Shop) -> None:
    customer = shop.customer(10**12)
    use(shop, customer)
    assert set_budget(shop, customer, 10**9, "total").spent_p == 0


def test_a_limit_below_what_is_spent_refuses_until_it_renews(shop: Shop) -> None:
    customer = shop.customer(10**12)
    budget = set_budget(shop, customer, 10**12, "day")
    use(shop, customer)
    with shop.sessions.begin() as session:
        budget_terms.change(session, tenant_id=customer.tenant_id, budget_id=budget.id, limit_p=1)
    (refusal,) = shop.place(shop.request(customer))
    assert isinstance(refusal, BudgetExceeded)
    with shop.sessions.begin() as session:
        session.execute(text("UPDATE budgets SET limit_p = 10^9, period_started_at = '2026-01-01'"))
    shop.hold(customer)
    assert the_budget(shop, customer).spent_p == 0


def test_a_budget_from_the_future_does_not_renew(shop: Shop) -> None:
    """As when the database's clock is put back."""
    customer = shop.customer(10**12)
    set_budget(shop, customer, ONE_HOLD_P, "day")
    use(shop, customer)
    with shop.sessions.begin() as session:
        ahead = datetime(2100, 1, 1, tzinfo=UTC)
        session.execute(update(Budget).values(period_started_at=ahead))
    (refusal,) = shop.place(shop.request(customer))
    assert isinstance(refusal, BudgetExceeded)
    assert the_budget(shop, customer).spent_p == cost_p(USAGE)


def test_what_no_key_spent_counts_for_the_tenant_alone(shop: Shop) -> None:
    customer = shop.customer(10**12)
    set_budget(shop, customer, 10**9)
    set_budget(shop, customer, 10**9, api_key_id=customer.api_key_id)
    with shop.sessions.begin() as session:
        funds.lock(session, tenant_ids=[customer.tenant_id])
        budgets.spend(session, tenant_id=customer.tenant_id, amount_p=7)
        found = budgets.of_tenant(session, tenant_id=customer.tenant_id)
    assert {it.scope: it.spent_p for it in found} == {"tenant": 7, "key": 0}


def test_a_threshold_is_told_once_a_period(shop: Shop) -> None:
    customer = shop.customer(10**12)
    budget = set_budget(shop, customer, cost_p(USAGE) * 5 // 4)
    use(shop, customer)
    with shop.sessions.begin() as session:
        (notice,) = session.scalars(select(WebhookNotice)).all()
        # Once more, as after somebody raised and lowered the limit.
        session.execute(update(Budget).values(spent_p=0))
    assert (notice.kind, notice.body["threshold_percent"]) == ("budget.threshold", 80)
    assert notice.body["budget_id"] == str(budget.id)
    use(shop, customer)
    with shop.sessions.begin() as session:
        assert len(session.scalars(select(WebhookNotice)).all()) == 1


def test_a_scope_has_one_budget_a_period(shop: Shop) -> None:
    customer = shop.customer()
    set_budget(shop, customer, 1)
    set_budget(shop, customer, 1, "day")
    with pytest.raises(Conflict):
        set_budget(shop, customer, 2)


def test_anothers_key_or_project_takes_no_budget(shop: Shop) -> None:
    customer, stranger = shop.customer(), shop.customer()
    for scope in ("api_key_id", "project_id"):
        with pytest.raises(NotFound):
            set_budget(shop, customer, 1, **{scope: getattr(stranger, scope)})


def test_anothers_budget_cannot_be_changed_or_removed(shop: Shop) -> None:
    customer, stranger = shop.customer(), shop.customer()
    budget = set_budget(shop, customer, 1)
    with shop.sessions.begin() as session:
        terms = {"tenant_id": stranger.tenant_id, "budget_id": budget.id}
        with pytest.raises(NotFound):
            budget_terms.change(session, **terms, limit_p=2)
        with pytest.raises(NotFound):
            budget_terms.remove(session, **terms)
    assert the_budget(shop, customer).limit_p == 1


def test_a_removed_budget_refuses_nothing(shop: Shop) -> None:
    customer = shop.customer(10**12)
    budget = set_budget(shop, customer, 0)
    with shop.sessions.begin() as session:
        budget_terms.remove(session, tenant_id=customer.tenant_id, budget_id=budget.id)
    shop.hold(customer)


def test_a_batch_of_any_number_of_requests_and_budgets_is_no_problem(shop: Shop) -> None:
    """PostgreSQL takes 65,535 parameters in a statement and some drivers half of that: batches
    must not grow into them."""
    customer = shop.customer(10**15)
    set_budget(shop, customer, 10**15)
    request_ids = [uuid7() for _ in range(33_000)]
    with shop.sessions.begin() as session:
        assert holds.release(session, request_ids) == 0
        assert budgets.of_keys(session, request_ids).by_id == {}
