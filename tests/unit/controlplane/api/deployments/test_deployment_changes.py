"""Changes of deployments that must be possible, and those that must not, whatever has changed."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.orders import DEDICATED, PUBLIC_KEY, stock
from support.rest_orders import change, order, ordered, refused
from support.shop import Customer, Shop

from controlplane.deployments import rows
from controlplane.deployments.models import OfferedConfiguration

AsTenant = Callable[[str], TestClient]


@pytest.fixture
def customer(shop: Shop) -> Customer:
    with shop.sessions.begin() as session:
        stock(session)
    return shop.customer(100 * 10**12)


@pytest.fixture
def account(as_tenant: AsTenant, customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def test_a_retried_order_stands_though_its_configuration_is_sold_no_more(
    account: TestClient, shop: Shop
) -> None:
    body = {"name": "bot", "path": "dedicated", "spec": DEDICATED}
    headers = {"idempotency-key": "once"}
    first = account.post("/v1/deployments", json=body, headers=headers)
    sell_no_more(shop)
    again = account.post("/v1/deployments", json=body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])


def test_what_is_sold_no_more_can_be_stopped(account: TestClient, shop: Shop) -> None:
    made = ordered(account)
    sell_no_more(shop)
    refused(change(account, made, {"replicas": 2}), 422, "does_not_fit", "spec.configurations")
    assert change(account, made, {"stopped": True}).json()["spec"]["stopped"] is True


def test_a_key_is_taken_away_without_money_and_starts_nothing(
    account: TestClient, shop: Shop
) -> None:
    made = ordered(account, "bare")
    keys = f"/v1/deployments/{made['id']}/ssh-keys"
    account.post(keys, json={"name": "lost", "public_key": PUBLIC_KEY})
    use_up_the_money(shop, made)
    answer = account.delete(f"{keys}/lost")
    assert answer.status_code == 200, answer.text
    assert answer.json()["spec"].get("sshKeys", []) == []
    assert answer.json()["stopped_because"] == "insufficient_balance"


def test_a_tenant_does_not_take_away_what_the_platform_chose(
    account: TestClient, admin: TestClient
) -> None:
    made = ordered(account)
    image = {"engine": {"image": "registry/engine@sha256:" + "0" * 64}}
    answer = admin.patch(f"/admin/v1/deployments/{made['id']}", json={"spec": image})
    assert answer.status_code == 200, answer.text
    refused(change(account, made, {"engine": None}), 422, "not_responsible", "spec.engine.image")
    kept = change(account, made, {"engine": {"name": "vllm"}}).json()
    assert kept["spec"]["engine"]["image"] == image["engine"]["image"]


def test_a_first_minute_of_all_replicas_must_be_there(
    shop: Shop, customer: Customer, as_tenant: AsTenant
) -> None:
    poor = as_tenant(shop.customer(10**12).token)  # 20 USD an hour: 3 replicas' minute
    refused(order(poor, spec=DEDICATED | {"replicas": 4}), 402, "insufficient_balance", None)
    made = order(poor, spec=DEDICATED | {"replicas": 3})
    assert made.status_code == 201
    refused(order(poor, name="second"), 402, "insufficient_balance", None)
    change(poor, made.json(), {"stopped": True})
    assert order(poor, name="second").status_code == 201
    assert change(poor, made.json(), {"stopped": False}).status_code == 402


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_price_from_beyond_all_years_is_refused(admin: TestClient, moment: str) -> None:
    price = {"configuration": "x", "usd_per_hour": "1", "effective_from": moment}
    refused(
        admin.post("/admin/v1/gpu-prices", json=price), 422, "invalid_parameter", "effective_from"
    )


def sell_no_more(shop: Shop) -> None:
    """Put a machine in the catalogue that has no room for the model."""
    with shop.sessions.begin() as session:
        for row in session.query(OfferedConfiguration):
            row.body = row.body | {"memoryGib": 1.0}


def use_up_the_money(shop: Shop, made: dict[str, Any]) -> None:
    with shop.sessions.begin() as session:
        rows.stop_for_funds(session, {uuid.UUID(made["id"])})
    shop.use_up(uuid.UUID(made["tenant_id"]))
