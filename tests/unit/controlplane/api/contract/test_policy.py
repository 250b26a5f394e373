"""The matrix of roles and routes, walked by real calls; and nobody sees what is another's."""

import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient
from support.invoicing import run
from support.orders import stock
from support.rest_orders import ordered
from support.shop import PEPPER, Customer, Shop

from controlplane.api.app import ADMIN_ROUTERS, TENANT_ROUTERS
from controlplane.api.contract import policy
from controlplane.api.contract import route as contract
from controlplane.api.contract.route import MUTATING, Contract
from controlplane.errors import StartupError
from controlplane.tenants import keys
from controlplane.usage.records import TokenUsage

AsTenant = Callable[[str], TestClient]
SCOPES_OF = {
    "owner": ["own"],
    "developer": ["manage"],
    "viewer": ["read"],
    "none": ["inference"],
}
NOBODYS = "019b76da-a800-7000-8000-00000000ffff"


def routes(routers: Sequence[APIRouter]) -> list[tuple[str, str]]:
    """Every method and path template of the routers."""
    return [
        (method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, Contract)
        for method in sorted(route.methods or ())
    ]


def call(client: TestClient, method: str, path: str) -> tuple[int, str]:
    """Call a route about things that are not there; return the status and the error's code."""
    url = re.sub(r"\{\w*id\}", NOBODYS, path)
    answer = client.request(method, re.sub(r"\{\w+\}", "nothing", url), json={})
    return answer.status_code, answer.json().get("error", {}).get("code", "") if (
        answer.status_code >= 400
    ) else ""


def walk(client: TestClient, routers: Sequence[APIRouter], role: str) -> None:
    for method, path in routes(routers):
        allowed = policy.roles(method, path)
        assert allowed is not None
        status, code = call(client, method, path)
        assert status < 500, (role, method, path)
        if allowed in (policy.KNOWN, policy.PUBLIC) or role in allowed:
            # A public route may ask for a proof of its own, such as a signature.
            refusals = ("invalid_api_key", "permission_denied")
            assert code not in refusals, (role, method, path, status)
        else:
            assert (status, code) == (403, "permission_denied"), (role, method, path)


@pytest.mark.parametrize("role", sorted(policy.STAFF))
def test_staff_gets_exactly_where_the_policy_says(
    admin_app: FastAPI, shop: Shop, role: str
) -> None:
    with shop.sessions.begin() as session:
        _, token = keys.issue_admin(session, PEPPER, name=role, role=role)
    with TestClient(admin_app, headers={"authorization": f"Bearer {token}"}) as client:
        walk(client, ADMIN_ROUTERS, role)


@pytest.mark.parametrize("role", sorted(SCOPES_OF))
def test_members_get_exactly_where_the_policy_says(
    as_tenant: AsTenant, shop: Shop, role: str
) -> None:
    with shop.sessions.begin() as session:
        _, token = keys.issue(
            session,
            PEPPER,
            tenant_id=shop.customer().tenant_id,
            name=role,
            scopes=SCOPES_OF[role],
        )
    walk(as_tenant(token), TENANT_ROUTERS, role)


@pytest.mark.parametrize("side", ["admin", "tenant"])
def test_strangers_get_nowhere(
    admin_app: FastAPI, tenant_app: FastAPI, shop: Shop, admin_key: str, side: str
) -> None:
    app, routers = (admin_app, ADMIN_ROUTERS) if side == "admin" else (tenant_app, TENANT_ROUTERS)
    of_the_other_side = shop.customer().token if side == "admin" else admin_key
    for token in ("", "a.b.c", of_the_other_side):
        with TestClient(app, headers={"authorization": f"Bearer {token}"}) as nobody:
            for method, path in routes(routers):
                if policy.roles(method, path) != policy.PUBLIC:
                    assert call(nobody, method, path) == (401, "invalid_api_key"), (method, path)


def test_every_row_is_of_a_route_there_is() -> None:
    there = {f"{method} {path}" for method, path in routes((*ADMIN_ROUTERS, *TENANT_ROUTERS))}
    assert set(policy.POLICY) == there | {"GET /health"}


def test_no_row_mixes_the_platforms_roles_with_the_tenants() -> None:
    for row, allowed in policy.POLICY.items():
        side = policy.STAFF if "/admin/" in row else policy.MEMBER
        assert allowed <= side or allowed in (policy.KNOWN, policy.PUBLIC), row


def test_a_viewer_changes_nothing_and_support_little() -> None:
    def changing(role: str) -> set[str]:
        rows = {row for row, allowed in policy.POLICY.items() if role in allowed}
        return {row for row in rows if row.split()[0] in MUTATING}

    assert changing("viewer") == set()
    assert changing("support") == {
        "PATCH /admin/v1/tenants/{tenant_id}",
        "DELETE /admin/v1/keys/{key_id}",
    }


def test_a_route_in_no_policy_stops_the_start() -> None:
    router = APIRouter(route_class=Contract)
    router.add_api_route("/v1/forgotten", lambda: None, methods=["GET"])
    with pytest.raises(StartupError, match="GET /v1/forgotten is not in the policy"):
        contract.check([router])


def test_a_route_outside_the_contract_stops_the_start() -> None:
    router = APIRouter()
    router.add_api_route("/v1/account", lambda: None, methods=["GET"])
    with pytest.raises(StartupError, match="/v1/account is no Contract"):
        contract.check([router])


BODIES: dict[str, object] = {
    "PATCH /v1/projects/{project_id}": {"name": "taken over"},
    "PATCH /v1/members/{member_id}": {"role": "viewer"},
    "PATCH /v1/account/budgets/{budget_id}": {"limit_usd": "0"},
    "PATCH /v1/account/webhooks/{endpoint_id}": {"enabled": False},
    "PATCH /v1/deployments/{deployment_id}": {"spec": {"replicas": 2}},
    "POST /v1/deployments/{deployment_id}/ssh-keys": {"name": "eve", "public_key": "ssh-rsa AAAA"},
}


@pytest.fixture
def owned(shop: Shop, as_tenant: AsTenant) -> dict[str, str]:
    """Ids of things that one tenant has, by what routes call them."""
    with shop.sessions.begin() as session:
        stock(session)
    customer = shop.customer(100 * 10**12)
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, TokenUsage(1, 2, 3, 0)))
    shop.settle()
    owner = as_tenant(customer.token)
    run(shop.sessions, datetime.now(UTC))
    (invoice,) = owner.get("/v1/account/invoices").json()["data"]
    member = owner.post("/v1/members", json={"email": "a@example.com", "role": "owner"}).json()
    budget = owner.post("/v1/account/budgets", json={"limit_usd": "100"}).json()
    hook = owner.post("/v1/account/webhooks", json={"url": "https://hooks.example/"}).json()
    ping = owner.post(f"/v1/account/webhooks/{hook['id']}/ping").json()
    return {
        "budget_id": budget["id"],
        "endpoint_id": hook["id"],
        "delivery_id": ping["id"],
        "key_id": str(customer.api_key_id),
        "project_id": str(customer.project_id),
        "member_id": member["id"],
        "deployment_id": ordered(owner)["id"],
        "request_id": str(request_id),
        "invoice_id": invoice["id"],
    }


def test_what_is_anothers_is_as_unknown_as_what_is_not(
    as_tenant: AsTenant, shop: Shop, owned: dict[str, str]
) -> None:
    other: Customer = shop.customer(100 * 10**12)
    eve = as_tenant(other.token)
    walked = 0
    for method, path in routes(TENANT_ROUTERS):
        names = re.findall(r"\{(\w+_id)\}", path)
        if not names:
            continue
        walked += 1
        answers = []
        for found in (owned[names[0]], str(uuid.uuid4())):
            url = path.replace(f"{{{names[0]}}}", found).replace("{name}", "default")
            url = url.replace("{rendering}", "pdf")
            answer = eve.request(method, url, json=BODIES.get(f"{method} {path}", {}))
            answers.append((answer.status_code, answer.text.replace(found, "ID")))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] == 404, (method, path, answers)
    assert walked >= 14
