"""The account API: a tenant's own money, usage and keys, and nobody else's."""

import re
import uuid
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from support.shop import Customer, Shop, cost_p

from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)
AsTenant = Callable[[str], TestClient]


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(10**12)


@pytest.fixture
def account(as_tenant: AsTenant, customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def used(shop: Shop, customer: Customer) -> uuid.UUID:
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()
    return request_id


def test_the_balance_has_deepseeks_shape(account: TestClient) -> None:
    assert account.get("/user/balance").json() == {
        "is_available": True,
        "balance_infos": [
            {
                "currency": "USD",
                "total_balance": "1.00",
                "granted_balance": "0.00",
                "topped_up_balance": "1.00",
            }
        ],
    }


def test_an_empty_account_is_not_available(shop: Shop, as_tenant: AsTenant) -> None:
    poor = as_tenant(shop.customer().token)
    assert poor.get("/user/balance").json()["is_available"] is False


def test_held_money_is_shown_apart(shop: Shop, customer: Customer, account: TestClient) -> None:
    shop.hold(customer)
    money = account.get("/v1/account").json()
    assert money["balance_p"] == "1000000000000"
    assert int(money["held_p"]) + int(money["available_p"]) == int(money["balance_p"])
    assert int(money["held_p"]) > 0


def test_a_receipt_adds_up(shop: Shop, customer: Customer, account: TestClient) -> None:
    request_id = used(shop, customer)
    found = account.get(f"/v1/account/usage/{request_id}").json()
    assert found["charge_p"] == str(cost_p(USAGE))
    assert sum(int(line["amount_p"]) for line in found["lines"]) == -cost_p(USAGE)
    assert found["output_usd_per_million"] == "0.28"


def test_usage_and_ledger_are_newest_first(
    shop: Shop, customer: Customer, account: TestClient
) -> None:
    request_ids = [used(shop, customer) for _ in range(3)]
    listed = account.get("/v1/account/usage").json()["data"]
    assert [row["request_id"] for row in listed] == [str(i) for i in reversed(request_ids)]
    lines = account.get("/v1/account/ledger", params={"limit": 1}).json()
    assert lines["data"][0]["request_id"] == str(request_ids[-1])
    assert lines["next"] is not None


def test_a_tenant_manages_its_own_keys(account: TestClient, as_tenant: AsTenant) -> None:
    made = account.post("/v1/account/keys", json={"name": "second"}).json()
    second = as_tenant(made["key"])
    assert second.get("/v1/account").status_code == 200
    assert len(account.get("/v1/account/keys").json()["data"]) == 2
    assert account.delete(f"/v1/account/keys/{made['id']}").status_code == 200
    assert second.get("/v1/account").status_code == 401


def test_anothers_things_are_not_there(shop: Shop, customer: Customer, as_tenant: AsTenant) -> None:
    request_id = used(shop, customer)
    stranger = as_tenant(shop.customer().token)
    assert stranger.get(f"/v1/account/usage/{request_id}").status_code == 404
    assert stranger.delete(f"/v1/account/keys/{customer.api_key_id}").status_code == 404
    assert stranger.get("/v1/account/usage").json()["data"] == []
    assert stranger.get("/v1/account/ledger").json()["data"] == []


def test_every_route_asks_for_a_key(tenant_app: FastAPI) -> None:
    with TestClient(tenant_app) as nobody:
        for path, methods in tenant_app.openapi()["paths"].items():
            for method in methods:
                if path != "/health":
                    url = re.sub(r"\{\w+_id\}", str(uuid.uuid4()), path).replace("{name}", "x")
                    assert nobody.request(method, url, json={}).status_code == 401


def test_admin_routes_are_not_here(account: TestClient, tenant_app: FastAPI) -> None:
    assert not [path for path in tenant_app.openapi()["paths"] if "admin" in path]
    answer = account.get("/admin/v1/tenants")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_an_admin_key_is_no_tenants_key(as_tenant: AsTenant, admin_key: str) -> None:
    assert as_tenant(admin_key).get("/v1/account").status_code == 401


def test_the_answer_is_true_when_it_arrives(shop: Shop, account: TestClient) -> None:
    made = account.post("/v1/account/keys", json={}).json()
    (found,) = [
        key for key in account.get("/v1/account/keys").json()["data"] if key["id"] == made["id"]
    ]
    assert found["name"] == "default"
