"""Prices of volumes, commitments and the burn rate over REST."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from starlette.testclient import TestClient
from support.gpu_meter import RATE_P, Meter
from support.shop import Shop

from controlplane.billing.gpu import intervals
from controlplane.money import p_to_usd
from controlplane.registry.leases import Lease

SPEND = {
    "kind": "spend",
    "usd_per_month": "500.00",
    "starts_at": "2040-01-01T00:00:00Z",
    "ends_at": "2041-01-01T00:00:00Z",
}
RESERVED = {
    "kind": "reserved",
    "configuration": "h200-x4",
    "replicas": 2,
    "usd_per_hour": "12.00",
    "starts_at": "2040-01-01T00:00:00Z",
    "ends_at": "2040-02-01T12:00:00Z",
}


def test_a_storage_price_is_published_once_and_listed(admin: TestClient) -> None:
    price = {"usd_per_gib_hour": "0.000137", "effective_from": "2030-01-01T00:00:00Z"}
    made = admin.post("/admin/v1/storage-prices", json=price)
    assert made.status_code == 201, made.text
    assert (made.json()["storage_class"], made.json()["usd_per_gib_hour"]) == ("*", "0.000137")
    assert admin.post("/admin/v1/storage-prices", json=price).status_code == 409
    assert admin.get("/admin/v1/storage-prices").json()["data"] == [made.json()]


def test_an_absurd_storage_price_is_refused(admin: TestClient) -> None:
    answer = admin.post("/admin/v1/storage-prices", json={"usd_per_gib_hour": "1.01"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_parameter")


def test_commitments_are_made_by_admins_and_shown_to_their_tenant(
    admin: TestClient, as_tenant: Callable[[str], TestClient], shop: Shop
) -> None:
    customer = shop.customer()
    path = f"/admin/v1/tenants/{customer.tenant_id}/commitments"
    made = [admin.post(path, json=body) for body in (SPEND, RESERVED)]
    assert [it.status_code for it in made] == [201, 201]
    assert made[0].json()["usd_per_month"] == "500.00"
    assert (made[1].json()["replicas"], made[1].json()["usd_per_hour"]) == (2, "12.00")
    shown = as_tenant(customer.token).get("/v1/account/commitments").json()["data"]
    assert shown == admin.get(path).json()["data"] == [it.json() for it in made]
    other = shop.customer()
    assert as_tenant(other.token).get("/v1/account/commitments").json()["data"] == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"usd_per_month": "0"}, "usd_per_month"),
        ({"starts_at": "2040-01-01T00:00:01Z"}, "starts_at"),
        ({"starts_at": "2020-01-01T00:00:00Z"}, "starts_at"),
        ({"ends_at": "2039-01-01T00:00:00Z"}, "ends_at"),
    ],
    ids=["nothing", "no month", "past", "backwards"],
)
def test_absurd_commitments_are_refused(
    admin: TestClient, shop: Shop, change: dict[str, str], param: str
) -> None:
    path = f"/admin/v1/tenants/{shop.customer().tenant_id}/commitments"
    answer = admin.post(path, json=SPEND | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_commitments_of_nobody_are_not_found(admin: TestClient) -> None:
    path = f"/admin/v1/tenants/{uuid.UUID(int=1)}/commitments"
    assert admin.get(path).status_code == 404
    assert admin.post(path, json=SPEND).status_code == 404
    assert admin.get(f"/admin/v1/tenants/{uuid.UUID(int=1)}/burn-rate").status_code == 404


def test_the_burn_rate_tells_how_long_the_funds_last(
    admin: TestClient, as_tenant: Callable[[str], TestClient], shop: Shop
) -> None:
    customer = shop.customer(10 * RATE_P)
    mine = as_tenant(customer.token)
    idle = mine.get("/v1/account/burn-rate").json()
    assert (idle["usd_per_hour"], idle["hours_left"], idle["funds"]) == ("0.00", None, "enough")
    now = datetime.now(UTC)
    meter = Meter(shop, customer)
    meter.publish_price(RATE_P, from_seconds=-1e9)
    _live(meter, meter.proof(uuid.uuid4(), 0, 0), now)
    found = mine.get("/v1/account/burn-rate").json()
    assert found["usd_per_hour"] == found["gpu_usd_per_hour"] == p_to_usd(RATE_P)
    assert (found["storage_usd_per_hour"], found["funds"]) == ("0.00", "day")
    assert found["hours_left"] in ("9.99", "10.00")
    assert admin.get(f"/admin/v1/tenants/{customer.tenant_id}/burn-rate").status_code == 200


def _live(meter: Meter, proof: Lease, now: datetime) -> None:
    """Prove a life by the clock that the API reads."""
    real = msgspec.structs.replace(
        proof,
        alive_since=(now - timedelta(seconds=5)).timestamp(),
        published_at=now.timestamp(),
    )
    with meter.shop.sessions.begin() as session:
        intervals.extend(session, [real], now)
