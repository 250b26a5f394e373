"""The admin API: its resources, its errors, and who gets in."""

import re
import uuid

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from support.shop import PEPPER, Shop, cost_p

from controlplane.api.app import create_admin_app
from controlplane.settings import Settings
from controlplane.tenants import keys
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)

NOBODY = "019b76da-a800-7000-8000-00000000ffff"


def new_tenant(admin: TestClient, name: str = "acme") -> str:
    answer = admin.post("/admin/v1/tenants", json={"name": name})
    assert answer.status_code == 201
    tenant_id: str = answer.json()["id"]
    return tenant_id


def test_a_tenant_is_made_shown_and_listed(admin: TestClient) -> None:
    tenant_id = new_tenant(admin)
    assert admin.get(f"/admin/v1/tenants/{tenant_id}").json()["name"] == "acme"
    listed = admin.get("/admin/v1/tenants").json()
    assert [tenant["id"] for tenant in listed["data"]] == [tenant_id]
    assert listed["next"] is None


def test_a_taken_name_is_a_conflict(admin: TestClient) -> None:
    new_tenant(admin)
    answer = admin.post("/admin/v1/tenants", json={"name": "acme"})
    assert answer.status_code == 409
    assert answer.json()["error"]["param"] == "name"


def test_a_listing_pages_through_everything_once(admin: TestClient) -> None:
    made = [new_tenant(admin, f"t{n}") for n in range(5)]
    seen: list[str] = []
    after: str | None = None
    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        page = admin.get("/admin/v1/tenants", params=query).json()
        seen += [tenant["id"] for tenant in page["data"]]
        after = page["next"]
        if after is None:
            break
    assert seen == made


def test_an_issued_key_works_and_is_shown_once(admin: TestClient, shop: Shop) -> None:
    tenant_id = new_tenant(admin)
    issued = admin.post(f"/admin/v1/tenants/{tenant_id}/keys", json={"name": "ci"}).json()
    with shop.sessions.begin() as session:
        principal = keys.authenticate(session, PEPPER, issued["key"])
    assert principal is not None
    assert str(principal.tenant_id) == tenant_id
    listed = admin.get(f"/admin/v1/tenants/{tenant_id}/keys").json()["data"]
    assert [key["name"] for key in listed] == ["ci"]
    assert "key" not in listed[0]


def test_a_deleted_key_is_revoked(admin: TestClient, shop: Shop) -> None:
    customer = shop.customer()
    answer = admin.delete(f"/admin/v1/keys/{customer.api_key_id}")
    assert answer.json()["revoked_at"] is not None
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, PEPPER, customer.token) is None


def test_a_suspended_tenant_is_locked_out_until_active_again(admin: TestClient, shop: Shop) -> None:
    customer = shop.customer()
    path = f"/admin/v1/tenants/{customer.tenant_id}"
    for status, known in (("suspended", False), ("active", True)):
        assert admin.patch(path, json={"status": status}).json()["status"] == status
        with shop.sessions.begin() as session:
            assert (keys.authenticate(session, PEPPER, customer.token) is not None) == known


def test_a_top_up_is_exact_to_the_picodollar(admin: TestClient) -> None:
    tenant_id = new_tenant(admin)
    body = {"amount_usd": "10.000000000001", "reason": "invoice 1"}
    answer = admin.post(f"/admin/v1/tenants/{tenant_id}/top-ups", json=body)
    assert answer.status_code == 201
    assert answer.json()["amount_p"] == "10000000000001"
    assert answer.json()["author"] == "root"
    balance = admin.get(f"/admin/v1/tenants/{tenant_id}/balance").json()
    assert (balance["balance_usd"], balance["available_p"]) == ("10.000000000001", "10000000000001")


def test_a_retried_top_up_credits_once(admin: TestClient) -> None:
    tenant_id = new_tenant(admin)
    url = f"/admin/v1/tenants/{tenant_id}/top-ups"
    headers = {"idempotency-key": "retry-1"}
    first, second = (
        admin.post(url, json={"amount_usd": "1"}, headers=headers).json() for _ in range(2)
    )
    assert first == second
    assert first["balance"]["balance_usd"] == "1.00"
    assert admin.post(url, json={"amount_usd": "2"}, headers=headers).status_code == 409


@pytest.mark.parametrize("amount", ["0", "-1", "1e3", "nan", "0.0000000000001", "99999999999", 1.5])
def test_an_amount_that_is_no_credit_is_refused(admin: TestClient, amount: object) -> None:
    tenant_id = new_tenant(admin)
    answer = admin.post(f"/admin/v1/tenants/{tenant_id}/top-ups", json={"amount_usd": amount})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "amount_usd"


def test_a_price_is_published_and_listed(admin: TestClient) -> None:
    body = {
        "model": "m",
        "hit_usd_per_million": "0.0028",
        "miss_usd_per_million": "0.14",
        "output_usd_per_million": "0.28",
    }
    made = admin.post("/admin/v1/prices", json=body)
    assert made.status_code == 201
    assert admin.get("/admin/v1/prices").json()["data"][-1] == made.json()
    assert made.json()["hit_usd_per_million"] == "0.0028"


def test_usage_and_ledger_tell_the_same(admin: TestClient, shop: Shop) -> None:
    customer, other = shop.customer(10**12), shop.customer(10**12)
    for who in (customer, other):
        shop.stage(shop.trace(who, shop.hold(who), USAGE))
    shop.settle()
    query = {"tenant_id": str(customer.tenant_id)}
    (used,) = admin.get("/admin/v1/usage", params=query).json()["data"]
    assert used["charge_p"] == str(cost_p(USAGE))
    lines = admin.get("/admin/v1/ledger", params=query).json()["data"]
    charged = sum(int(line["amount_p"]) for line in lines if line["kind"] == "charge")
    assert charged == -cost_p(USAGE)
    assert len(admin.get("/admin/v1/usage").json()["data"]) == 2


def test_the_books_are_told(admin: TestClient, shop: Shop) -> None:
    shop.hold(shop.customer(10**12))
    report = admin.get("/admin/v1/books").json()
    assert (report["ok"], report["violations"], report["open_holds"]) == (True, [], 1)


@pytest.mark.parametrize("token", ["", "nonsense", "dsa_" + "0" * 67])
def test_nobody_gets_in_without_an_admin_key(admin_app: FastAPI, token: str) -> None:
    with TestClient(admin_app, headers={"authorization": f"Bearer {token}"}) as nobody:
        answer = nobody.get("/admin/v1/tenants")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_tenants_key_is_no_admin_key(admin_app: FastAPI, shop: Shop) -> None:
    token = shop.customer().token
    with TestClient(admin_app, headers={"authorization": f"Bearer {token}"}) as client:
        assert client.get("/admin/v1/tenants").status_code == 401


def test_every_admin_route_asks_for_a_key(admin_app: FastAPI) -> None:
    with TestClient(admin_app) as nobody:
        for path, methods in admin_app.openapi()["paths"].items():
            for method in methods:
                if path != "/health":
                    url = re.sub(r"\{\w+_id\}", str(uuid.uuid4()), path)
                    answer = nobody.request(method, url, json={})
                    assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/admin/v1/tenants", 405, "method_not_allowed"),
        ("GET", f"/admin/v1/tenants/{NOBODY}", 404, "not_found"),
        ("GET", "/admin/v1/tenants/7", 422, "invalid_parameter"),
        ("GET", "/admin/v1/tenants?limit=0", 422, "invalid_parameter"),
        ("GET", f"/admin/v1/ledger?after={2**64}", 422, "invalid_parameter"),
        ("DELETE", f"/admin/v1/keys/{NOBODY}", 404, "not_found"),
    ],
)
def test_every_error_has_openais_shape(
    admin: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = admin.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code


def test_a_body_that_is_not_json_is_a_400(admin: TestClient) -> None:
    answer = admin.post(
        "/admin/v1/tenants", content=b"{", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "a\nb", "x" * 201, 7, None, ["a"]])
def test_a_name_out_of_its_domain_is_a_422(admin: TestClient, name: object) -> None:
    answer = admin.post("/admin/v1/tenants", json={"name": name})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "name"


def test_a_refused_body_is_not_quoted(admin: TestClient) -> None:
    answer = admin.post("/admin/v1/tenants", json={"name": ["canary-secret"]})
    assert "canary" not in answer.text


def test_an_unreachable_database_is_a_503_worth_a_retry(admin: TestClient) -> None:
    settings = Settings(DATABASE_URL="postgresql:///none?host=/nonexistent", key_pepper="p")
    with TestClient(create_admin_app(settings)) as client:
        key = admin.headers["authorization"]
        answer = client.get("/admin/v1/tenants", headers={"authorization": key})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "database_unavailable"


def test_the_openapi_page_is_there(admin: TestClient) -> None:
    assert admin.get("/docs").status_code == 200
    assert admin.get("/health").json() == {"status": "ok"}


def test_a_tenant_is_deleted_for_ever(admin: TestClient, shop: Shop) -> None:
    customer = shop.customer(10**12)
    path = f"/admin/v1/tenants/{customer.tenant_id}"
    refused = admin.delete(path)
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "waive_balance")
    gone = admin.delete(path, params={"waive_balance": True})
    assert (gone.status_code, gone.json()["status"]) == (200, "deleted")
    assert admin.patch(path, json={"status": "active"}).status_code == 409
    top_up = admin.post(f"{path}/top-ups", json={"amount_usd": "1"})
    assert top_up.status_code == 409
    assert admin.get(path).json()["name"] == f"deleted {customer.tenant_id}"
