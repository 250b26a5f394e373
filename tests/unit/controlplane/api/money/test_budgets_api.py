"""Budgets over REST: set, shown, changed, removed; and bad input."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.shop import Customer, Shop

AsTenant = Callable[[str], TestClient]
BUDGETS = "/v1/account/budgets"


def made(client: TestClient, body: dict[str, Any], path: str = BUDGETS, status: int = 201) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(10**12)


@pytest.fixture
def owner(as_tenant: AsTenant, customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def test_a_budget_is_shown_as_it_stands(owner: TestClient, shop: Shop, customer: Customer) -> None:
    budget = made(owner, {"limit_usd": "1.5", "api_key_id": str(customer.api_key_id)})
    shop.hold(customer)
    (shown,) = owner.get(BUDGETS).json()["data"]
    assert shown == owner.get(f"{BUDGETS}/{budget['id']}").json()
    assert (shown["scope"], shown["period"], shown["thresholds"]) == ("key", "month", [80, 100])
    assert (shown["limit_usd"], shown["spent_p"]) == ("1.50", "0")
    assert int(shown["held_p"]) == shop.balance(customer).held_p > 0
    assert int(shown["available_p"]) == 15 * 10**11 - int(shown["held_p"])


def test_a_budget_is_changed_and_removed(owner: TestClient) -> None:
    budget = made(owner, {"limit_usd": "10", "period": "day"})
    path = f"{BUDGETS}/{budget['id']}"
    changed = owner.patch(path, json={"limit_usd": "0", "thresholds": [90, 50, 90]}).json()
    assert (changed["limit_usd"], changed["thresholds"]) == ("0.00", [50, 90])
    assert owner.delete(path).status_code == 204
    assert owner.get(path).status_code == 404


def test_an_etag_survives_spending_and_not_a_change(
    owner: TestClient, shop: Shop, customer: Customer
) -> None:
    path = f"{BUDGETS}/{made(owner, {'limit_usd': '10'})['id']}"
    etag = owner.get(path).headers["etag"]
    shop.hold(customer)
    assert owner.get(path).headers["etag"] == etag
    assert owner.patch(path, json={"limit_usd": "11"}).status_code == 200
    stale = owner.patch(path, json={"limit_usd": "12"}, headers={"if-match": etag})
    assert stale.status_code == 412


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limit_usd": "-1"},
        {"limit_usd": "0.0000000000001"},
        {"limit_usd": "1", "period": "week"},
        {"limit_usd": "1", "thresholds": [0]},
        {"limit_usd": "1", "thresholds": [101]},
        {"limit_usd": "1", "thresholds": list(range(1, 12))},
        {
            "limit_usd": "1",
            "project_id": str(uuid.UUID(int=1)),
            "api_key_id": str(uuid.UUID(int=2)),
        },
    ],
)
def test_what_makes_no_sense_is_refused(owner: TestClient, body: dict[str, Any]) -> None:
    assert made(owner, body, status=422)["error"]["type"] == "invalid_request_error"


def test_a_second_budget_of_a_scope_and_period_is_a_conflict(owner: TestClient) -> None:
    made(owner, {"limit_usd": "1"})
    made(owner, {"limit_usd": "1"}, status=409)


def test_another_tenants_key_is_not_found(owner: TestClient, shop: Shop) -> None:
    stranger = shop.customer()
    made(owner, {"limit_usd": "1", "api_key_id": str(stranger.api_key_id)}, status=404)


def test_the_platform_sets_budgets_of_any_tenant(
    admin: TestClient, owner: TestClient, customer: Customer
) -> None:
    path = f"/admin/v1/tenants/{customer.tenant_id}/budgets"
    budget = made(admin, {"limit_usd": "3", "project_id": str(customer.project_id)}, path)
    assert owner.get(f"{BUDGETS}/{budget['id']}").json() == budget
    assert admin.get(f"{path}/{budget['id']}").json() == budget
    assert len(admin.get(path).json()["data"]) == 1
    assert admin.patch(f"{path}/{budget['id']}", json={}).json() == budget
    assert admin.delete(f"{path}/{budget['id']}").status_code == 204
    nobodys = f"/admin/v1/tenants/{uuid.UUID(int=1)}/budgets"
    assert admin.get(nobodys).status_code == 404
    made(admin, {"limit_usd": "3"}, nobodys, status=404)
