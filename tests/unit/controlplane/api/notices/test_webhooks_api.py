"""Webhooks over REST: made, changed, tried out, repeated, and nobody else's."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient
from support.shop import Shop

from controlplane.webhooks.models import WebhookDelivery

URL = "https://hooks.example.com/a"
PATH = "/v1/account/webhooks"

As = Callable[[str], TestClient]


@pytest.fixture
def tenant(as_tenant: As, shop: Shop) -> TestClient:
    return as_tenant(shop.customer().token)


def test_an_endpoint_shows_its_secret_once(tenant: TestClient) -> None:
    made = tenant.post(PATH, json={"url": URL, "kinds": ["funds.low", "funds.low"]}).json()
    assert made["secret"].startswith("whsec_")
    assert made["kinds"] == ["funds.low"]
    shown = tenant.get(f"{PATH}/{made['id']}").json()
    assert "secret" not in shown
    assert tenant.get(PATH).json()["data"] == [shown]


def test_an_endpoint_changes_and_goes(tenant: TestClient) -> None:
    made = tenant.post(PATH, json={"url": URL}).json()
    path = f"{PATH}/{made['id']}"
    changed = tenant.patch(path, json={"enabled": False, "kinds": ["invoice.finalized"]}).json()
    assert (changed["url"], changed["enabled"]) == (URL, False)
    assert changed["kinds"] == ["invoice.finalized"]
    assert tenant.delete(path).status_code == 204
    assert tenant.get(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"url": "http://example.com"}, {"url": "https://10.0.0.1"}, {"url": 7}),
        *({"url": URL, "kinds": ["No Kind"]}, {"url": URL, "secret": "mine"}),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(tenant: TestClient, body: object) -> None:
    answer = tenant.post(PATH, json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_parameter"


def test_an_account_has_only_so_many(tenant: TestClient) -> None:
    statuses = [tenant.post(PATH, json={"url": URL}).status_code for _ in range(21)]
    assert statuses == [201] * 20 + [409]


def test_a_ping_is_put_out_and_can_be_repeated_when_it_ended(
    tenant: TestClient, shop: Shop
) -> None:
    endpoint = tenant.post(PATH, json={"url": URL, "kinds": ["funds.low"]}).json()
    first = tenant.post(f"{PATH}/{endpoint['id']}/ping").json()
    assert (first["kind"], first["state"]) == ("ping", "pending")
    again = f"{PATH}/deliveries/{first['id']}/redeliver"
    assert tenant.post(again).status_code == 409
    with shop.sessions.begin() as session:
        session.execute(
            update(WebhookDelivery).values(state="dead", ended_at=datetime.now(UTC), attempts=9)
        )
    second = tenant.post(again).json()
    assert second["message_id"] == first["message_id"]
    listed = tenant.get(f"{PATH}/deliveries", params={"endpoint_id": endpoint["id"]}).json()
    assert [it["id"] for it in listed["data"]] == [second["id"], first["id"]]


def test_anothers_endpoint_is_not_there(tenant: TestClient, as_tenant: As, shop: Shop) -> None:
    other = as_tenant(shop.customer().token)
    endpoint = other.post(PATH, json={"url": URL}).json()
    delivery = other.post(f"{PATH}/{endpoint['id']}/ping").json()
    answers = [
        tenant.get(f"{PATH}/{endpoint['id']}"),
        tenant.patch(f"{PATH}/{endpoint['id']}", json={"enabled": False}),
        tenant.delete(f"{PATH}/{endpoint['id']}"),
        tenant.post(f"{PATH}/{endpoint['id']}/ping"),
        tenant.post(f"{PATH}/deliveries/{delivery['id']}/redeliver"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert tenant.get(PATH).json()["data"] == []
    assert tenant.get(f"{PATH}/deliveries").json()["data"] == []


def test_an_admin_sees_and_turns_off_a_tenants_endpoints(admin: TestClient, shop: Shop) -> None:
    path = f"/admin/v1/tenants/{shop.customer().tenant_id}/webhooks"
    made = admin.post(path, json={"url": URL}).json()
    assert admin.get(path).json()["data"][0]["id"] == made["id"]
    off = admin.patch(f"{path}/{made['id']}", json={"enabled": False})
    assert off.json()["enabled"] is False
    assert admin.get(f"{path}/deliveries").json()["data"] == []
    assert admin.delete(f"{path}/{made['id']}").status_code == 204
    assert admin.get(f"/admin/v1/tenants/{uuid.UUID(int=1)}/webhooks").status_code == 404
