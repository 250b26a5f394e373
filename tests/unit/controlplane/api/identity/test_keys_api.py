"""Keys and projects over REST: scopes, expiry, rotation with an overlap, archiving; admin keys."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient
from support.shop import PEPPER, Customer, Shop

from controlplane.tenants import keys

AsTenant = Callable[[str], TestClient]


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer()


@pytest.fixture
def owner(as_tenant: AsTenant, customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def is_known(shop: Shop, token: str) -> bool:
    with shop.sessions.begin() as session:
        return keys.authenticate(session, PEPPER, token) is not None


def issued(client: TestClient, **body: object) -> dict[str, Any]:
    answer = client.post("/v1/account/keys", json=body)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def test_a_key_has_the_scopes_it_was_given(owner: TestClient, shop: Shop) -> None:
    made = issued(owner, scopes=["read", "inference"])
    assert made["scopes"] == ["inference", "read"]
    with shop.sessions.begin() as session:
        principal = keys.authenticate(session, PEPPER, made["key"])
    assert principal is not None
    assert principal.scopes == {"inference", "read"}


def test_a_key_ends_when_it_expires(owner: TestClient, shop: Shop) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = issued(owner, expires_at=soon.isoformat())
    assert is_known(shop, made["key"])
    with shop.sessions.begin() as session:
        session.execute(text("UPDATE api_keys SET expires_at = now() WHERE name = 'default'"))
    assert not is_known(shop, made["key"])


def test_a_moment_that_is_past_is_no_expiry(owner: TestClient) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    answer = owner.post("/v1/account/keys", json={"expires_at": past})
    assert answer.json()["error"]["param"] == "expires_at"


def test_a_rotated_key_lives_on_for_the_overlap(owner: TestClient, shop: Shop) -> None:
    old = issued(owner, name="ci", scopes=["inference"])
    path = f"/v1/account/keys/{old['id']}"
    new = owner.post(f"{path}/rotations", json={"overlap_seconds": 3600}).json()
    assert (new["name"], new["scopes"], new["project_id"]) == (
        old["name"],
        old["scopes"],
        old["project_id"],
    )
    assert new["line_id"] == old["line_id"] == old["id"]
    shown = owner.get(path).json()
    assert shown["replaced_by_id"] == new["id"]
    ends_in = datetime.fromisoformat(shown["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < ends_in <= timedelta(hours=1)
    assert is_known(shop, old["key"])
    assert is_known(shop, new["key"])


def test_a_rotation_without_overlap_ends_the_old_key_at_once(owner: TestClient, shop: Shop) -> None:
    old = issued(owner)
    new = owner.post(f"/v1/account/keys/{old['id']}/rotations", json={"overlap_seconds": 0}).json()
    assert not is_known(shop, old["key"])
    assert is_known(shop, new["key"])


def test_of_one_line_two_keys_live_at_most(owner: TestClient) -> None:
    path = f"/v1/account/keys/{issued(owner)['id']}/rotations"
    assert owner.post(path, json={}).status_code == 201
    assert owner.post(path, json={}).status_code == 409


def test_a_revoked_key_is_not_rotated(owner: TestClient) -> None:
    path = f"/v1/account/keys/{issued(owner)['id']}"
    owner.delete(path)
    assert owner.post(f"{path}/rotations", json={}).status_code == 409


def test_the_last_use_is_told_once_a_minute(owner: TestClient, shop: Shop) -> None:
    (before,) = owner.get("/v1/account/keys").json()["data"]
    (after,) = owner.get("/v1/account/keys").json()["data"]
    assert before["last_used_at"] == after["last_used_at"]
    assert before["last_used_at"] is not None


def test_an_archived_projects_keys_open_nothing(owner: TestClient, shop: Shop) -> None:
    project = owner.post("/v1/projects", json={"name": "lab"}).json()
    made = issued(owner, project_id=project["id"])
    path = f"/v1/projects/{project['id']}"
    assert owner.patch(path, json={"archived": True}).json()["archived_at"] is not None
    assert not is_known(shop, made["key"])
    refused = owner.post("/v1/account/keys", json={"project_id": project["id"]})
    assert refused.json()["error"]["param"] == "project_id"
    assert owner.patch(path, json={"archived": False}).json()["archived_at"] is None
    assert is_known(shop, made["key"])


def test_the_default_project_stays(owner: TestClient, customer: Customer) -> None:
    path = f"/v1/projects/{customer.project_id}"
    for change in ({"archived": True}, {"name": "other"}):
        assert owner.patch(path, json=change).status_code == 409


def test_a_projects_name_is_taken_once(owner: TestClient, as_tenant: AsTenant, shop: Shop) -> None:
    assert owner.post("/v1/projects", json={"name": "lab"}).status_code == 201
    assert owner.post("/v1/projects", json={"name": "lab"}).status_code == 409
    other = as_tenant(shop.customer().token)
    assert other.post("/v1/projects", json={"name": "lab"}).status_code == 201


def test_no_key_for_anothers_project(owner: TestClient, shop: Shop) -> None:
    project_id = str(shop.customer().project_id)
    assert owner.post("/v1/account/keys", json={"project_id": project_id}).status_code == 404


def test_an_admin_key_has_a_role_and_an_end(admin: TestClient, shop: Shop) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"name": "bot", "role": "support", "expires_at": soon}
    made = admin.post("/admin/v1/admin-keys", json=body).json()
    with shop.sessions.begin() as session:
        found = keys.authenticate_admin(session, PEPPER, made["key"])
        assert found is not None
        assert found.role == "support"
        session.execute(text("UPDATE admin_keys SET expires_at = now() WHERE name = 'bot'"))
    with shop.sessions.begin() as session:
        assert keys.authenticate_admin(session, PEPPER, made["key"]) is None


def test_a_revoked_admin_key_opens_nothing(admin: TestClient, shop: Shop) -> None:
    made = admin.post("/admin/v1/admin-keys", json={"name": "bot", "role": "billing"}).json()
    path = f"/admin/v1/admin-keys/{made['id']}"
    assert admin.delete(path).json()["revoked_at"] == admin.get(path).json()["revoked_at"]
    with shop.sessions.begin() as session:
        assert keys.authenticate_admin(session, PEPPER, made["key"]) is None


def test_models_are_described_hidden_and_given_other_names(admin: TestClient) -> None:
    path = "/admin/v1/models/deepseek-flash"
    made = admin.put(path, json={"alias_of": "deepseek-v4-flash", "description": "the same"})
    assert made.status_code == 200, made.text
    assert admin.get("/admin/v1/models").json() == {"data": [made.json()], "next": None}
    assert admin.delete(path).json()["alias_of"] == "deepseek-v4-flash"
    assert admin.get(path).status_code == 404


@pytest.mark.parametrize(
    ("name", "target", "status"),
    [
        ("fast", "unpriced", 422),
        ("deepseek-v4-flash", "deepseek-v4-flash", 409),
        ("fast", "chat", 422),
        ("no/slash", "deepseek-v4-flash", 404),
        ("-dash", "deepseek-v4-flash", 422),
    ],
)
def test_an_alias_leads_to_a_model_that_has_a_price(
    admin: TestClient, name: str, target: str, status: int
) -> None:
    admin.put("/admin/v1/models/chat", json={"alias_of": "deepseek-v4-flash"})
    answer = admin.put(f"/admin/v1/models/{name}", json={"alias_of": target})
    assert answer.status_code == status
