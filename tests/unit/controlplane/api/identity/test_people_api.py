"""People over REST: invited by address, bound by a verified token, let in by role."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from support.issuer import CLIENT, Issuer, running_issuer
from support.shop import Customer, Shop

from controlplane.api.app import create_admin_app, create_tenant_app
from controlplane.settings import Settings

As = Callable[..., TestClient]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def trusting(settings: Settings, issuer: Issuer) -> Settings:
    people = {"oidc_issuer": issuer.address, "oidc_client_id": CLIENT}
    return settings.model_copy(update=people)


@pytest.fixture
def tenant_app(trusting: Settings) -> FastAPI:
    return create_tenant_app(trusting)


@pytest.fixture
def admin_app(trusting: Settings) -> FastAPI:
    return create_admin_app(trusting)


@pytest.fixture
def person(as_tenant: Callable[[str], TestClient], issuer: Issuer) -> As:
    """Return a client of a person, whose claims are right but for those told."""
    return lambda subject="ada", **claims: as_tenant(issuer.token(subject, **claims))


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer()


@pytest.fixture
def owner(as_tenant: Callable[[str], TestClient], customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def invite(owner: TestClient, subject: str = "ada", role: str = "developer") -> dict[str, str]:
    answer = owner.post("/v1/members", json={"email": f"{subject}@example.com", "role": role})
    assert answer.status_code == 201
    invited: dict[str, str] = answer.json()
    return invited


def test_somebody_invited_is_let_in_at_the_first_login(
    owner: TestClient, person: As, customer: Customer
) -> None:
    assert person().get("/v1/account").status_code == 403
    invited = invite(owner)
    assert invited["person_id"] is None
    me = person().get("/v1/me").json()
    assert me["memberships"] == [{"tenant_id": str(customer.tenant_id), "role": "developer"}]
    assert me["email"] == "ada@example.com"
    assert person().get("/v1/account").status_code == 200
    assert owner.get(f"/v1/members/{invited['id']}").json()["person_id"] is not None


def test_an_address_in_other_letters_is_the_same(owner: TestClient, person: As) -> None:
    owner.post("/v1/members", json={"email": "Ada@Example.COM", "role": "viewer"})
    assert person().get("/v1/account").status_code == 200


def test_an_address_that_is_not_verified_binds_nothing(owner: TestClient, person: As) -> None:
    invite(owner)
    assert person(email_verified=False).get("/v1/account").status_code == 403


def test_a_bound_membership_stays_with_its_person(owner: TestClient, person: As) -> None:
    invite(owner)
    assert person().get("/v1/account").status_code == 200
    assert person("eve", email="ada@example.com").get("/v1/account").status_code == 403
    assert person(email="ada@elsewhere.example").get("/v1/account").status_code == 200


def test_a_role_is_what_a_person_may(owner: TestClient, person: As) -> None:
    member = invite(owner, role="viewer")
    ada = person()
    assert ada.get("/v1/account/keys").status_code == 200
    assert ada.post("/v1/account/keys", json={}).status_code == 403
    owner.patch(f"/v1/members/{member['id']}", json={"role": "developer"})
    made = ada.post("/v1/account/keys", json={}).json()
    assert made["scopes"] == ["inference", "read", "manage"]
    too_much = ada.post("/v1/account/keys", json={"scopes": ["own"]})
    assert too_much.json()["error"]["code"] == "permission_denied"
    owner.delete(f"/v1/members/{member['id']}")
    assert ada.get("/v1/account").status_code == 403


def test_a_member_of_two_tenants_says_which(
    owner: TestClient, as_tenant: Callable[[str], TestClient], person: As, shop: Shop
) -> None:
    other = shop.customer()
    invite(owner)
    invite(as_tenant(other.token), role="viewer")
    ada = person()
    assert ada.get("/v1/account").json()["error"]["param"] == "Flashplane-Tenant"
    there = {"flashplane-tenant": str(other.tenant_id)}
    assert ada.get("/v1/account", headers=there).status_code == 200
    assert ada.post("/v1/account/keys", json={}, headers=there).status_code == 403


def test_a_tenant_of_others_answers_as_one_that_is_not(
    owner: TestClient, person: As, shop: Shop
) -> None:
    invite(owner)
    ada = person()
    ids = (str(shop.customer().tenant_id), "019b76da-a800-7000-8000-00000000ffff")
    answers = [ada.get("/v1/account", headers={"flashplane-tenant": it}) for it in ids]
    assert [it.status_code for it in answers] == [403, 403]
    assert answers[0].content == answers[1].content


def test_a_suspended_tenants_people_are_locked_out(
    owner: TestClient, person: As, admin: TestClient, customer: Customer
) -> None:
    invite(owner)
    assert person().get("/v1/account").status_code == 200
    admin.patch(f"/admin/v1/tenants/{customer.tenant_id}", json={"status": "suspended"})
    assert person().get("/v1/account").status_code == 403


def test_the_last_owner_stays(owner: TestClient, person: As) -> None:
    member = invite(owner, role="owner")
    path = f"/v1/members/{member['id']}"
    person().get("/v1/me")
    assert owner.patch(path, json={"role": "viewer"}).status_code == 409
    assert owner.delete(path).status_code == 409
    invite(owner, "bob", role="owner")
    person("bob").get("/v1/me")
    assert owner.delete(path).status_code == 200


def test_nobody_is_invited_twice(owner: TestClient) -> None:
    invite(owner)
    body = {"email": "ADA@example.com", "role": "viewer"}
    assert owner.post("/v1/members", json=body).status_code == 409


@pytest.mark.parametrize("email", ["", "ada", "a b@c.de", "ada@", "@x.de", "a\x00@b.de"])
def test_an_address_out_of_its_domain_is_a_422(owner: TestClient, email: str) -> None:
    answer = owner.post("/v1/members", json={"email": email, "role": "viewer"})
    assert answer.json()["error"]["param"] == "email"


def test_staff_is_invited_and_gets_its_role(admin: TestClient, issuer: Issuer) -> None:
    admin.post("/admin/v1/staff", json={"email": "sue@example.com", "role": "billing"})
    sue = TestClient(admin.app, headers={"authorization": f"Bearer {issuer.token('sue')}"})
    assert sue.get("/admin/v1/me").json()["role"] == "billing"
    assert sue.post("/admin/v1/tenants", json={"name": "x"}).status_code == 403
    eve = TestClient(admin.app, headers={"authorization": f"Bearer {issuer.token('eve')}"})
    assert eve.get("/admin/v1/tenants").status_code == 403


def test_a_staff_members_name_stands_in_the_ledger(
    admin: TestClient, issuer: Issuer, customer: Customer
) -> None:
    admin.post("/admin/v1/staff", json={"email": "sue@example.com", "role": "billing"})
    sue = TestClient(admin.app, headers={"authorization": f"Bearer {issuer.token('sue')}"})
    path = f"/admin/v1/tenants/{customer.tenant_id}/top-ups"
    assert sue.post(path, json={"amount_usd": "1"}).json()["author"] == "Sue"
