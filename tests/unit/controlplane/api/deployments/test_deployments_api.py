"""Deployments over REST: orders, changes, refusals, bills, and nobody else's."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.orders import BARE, DEDICATED, PUBLIC_KEY, stock
from support.rest_orders import change, order, ordered, refused
from support.shop import Customer, Shop

from controlplane.billing.gpu import intervals, stops
from controlplane.deployments.models import Deployment
from controlplane.registry.leases import Lease

AsTenant = Callable[[str], TestClient]


@pytest.fixture
def customer(shop: Shop) -> Customer:
    with shop.sessions.begin() as session:
        stock(session)
    return shop.customer(100 * 10**12)


@pytest.fixture
def account(as_tenant: AsTenant, customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def test_an_order_is_completed_shown_and_listed(account: TestClient, customer: Customer) -> None:
    made = ordered(account)
    assert made["namespace"] == f"fp-{customer.tenant_id}"
    assert made["spec"]["tenant"] == str(customer.tenant_id)
    assert made["spec"]["weights"]["hub"]["repo"] == "deepseek-ai/DeepSeek-V4-Flash"
    assert made["responsibility"]["scalingAndRuntime"] == "platform"
    assert account.get(f"/v1/deployments/{made['id']}").json() == made
    assert account.get("/v1/deployments").json() == {"data": [made], "next": None}


def test_a_dry_run_tells_everything_and_orders_nothing(account: TestClient) -> None:
    body = {"name": "bot", "path": "dedicated", "spec": DEDICATED | {"replicas": 2}}
    answer = account.post("/v1/deployments?dry_run=true", json=body)
    assert answer.status_code == 200
    preview = answer.json()
    assert preview["placement"] == {
        "configuration": "h200-x4",
        "gpus": 4,
        "nodes": 1,
        "spot": False,
    }
    assert preview["stock"] == {"h200-x4": 2}
    assert (preview["replica_usd_per_hour"], preview["usd_per_hour_max"]) == ("20.00", "40.00")
    assert 60 < preview["estimated_seconds_to_serve"] < 3600
    assert "cheaper than the serverless path only above" in " ".join(preview["warnings"])
    assert account.get("/v1/deployments").json()["data"] == []


def test_the_same_idempotency_key_is_the_same_order(account: TestClient) -> None:
    body = {"name": "bot", "path": "dedicated", "spec": DEDICATED}
    headers = {"idempotency-key": "once"}
    first, second = (
        account.post("/v1/deployments", json=body, headers=headers).json() for _ in range(2)
    )
    assert first == second
    other = account.post("/v1/deployments", json=body | {"name": "other"}, headers=headers)
    refused(other, 409, "conflict", None)


def test_a_taken_name_is_a_conflict_on_any_path(account: TestClient) -> None:
    ordered(account)
    refused(order(account, "bare"), 409, "conflict", "name")


def test_a_change_is_merged_and_counted(account: TestClient) -> None:
    made = ordered(account)
    changed = change(account, made, {"replicas": None, "scaling": {"min": 1, "max": 3}}).json()
    assert changed["spec"]["scaling"]["max"] == 3
    assert "replicas" not in changed["spec"]
    assert changed["generation"] == 2
    again = change(account, made, {"scaling": {"max": 3}}).json()
    assert again["generation"] == 2


def test_a_deleted_one_is_kept_for_its_bill_and_changes_no_more(account: TestClient) -> None:
    made = ordered(account)
    answer = account.delete(f"/v1/deployments/{made['id']}")
    assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
    refused(change(account, made, {"replicas": 2}), 409, "deleting", None)
    assert account.get(f"/v1/deployments/{made['id']}/usage").status_code == 200


@pytest.mark.parametrize(
    ("path", "spec", "param"),
    [
        ("bare", {"scaling": {"max": 2}}, "spec.scaling"),
        ("bare", {"engine": {"name": "vllm"}}, "spec.engine"),
        ("bare", {"replicas": 2}, "spec.replicas"),
        ("dedicated", {"image": "mine:1"}, "spec.image"),
        ("dedicated", {"sshKeys": []}, "spec.sshKeys"),
        ("dedicated", {"engine": {"image": "mine:1"}}, "spec.engine.image"),
        ("dedicated", {"engine": {"arguments": ["--x"]}}, "spec.engine.arguments"),
    ],
)
def test_what_the_other_party_owns_is_refused(
    account: TestClient, path: str, spec: dict[str, Any], param: str
) -> None:
    given = (DEDICATED if path == "dedicated" else BARE) | spec
    refused(order(account, path, spec=given), 422, "not_responsible", param)
    made = ordered(account, path)
    refused(change(account, made, spec), 422, "not_responsible", param)


@pytest.mark.parametrize(
    ("spec", "code", "param"),
    [
        ({"configurations": []}, "invalid_parameter", "spec.configurations"),
        ({"replicas": -1}, "invalid_parameter", "spec.replicas"),
        ({"replicas": None}, "invalid_parameter", "spec"),
        ({"nonsense": 1}, "invalid_parameter", "spec.nonsense"),
        ({"tenant": "another"}, "invalid_parameter", "spec.tenant"),
        ({"path": "serverless"}, "invalid_parameter", "spec.path"),
        ({"model": "a\x00b"}, "invalid_parameter", "spec"),
        ({"configurations": ["b300-x99"]}, "no_price", "spec.configurations"),
        ({"configurations": ["rtx-4090"]}, "does_not_fit", "spec.configurations"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_by_field(
    account: TestClient, spec: dict[str, Any], code: str, param: str
) -> None:
    refused(order(account, spec=DEDICATED | spec), 422, code, param)


@pytest.mark.parametrize(
    "value",
    [
        *("1e999", "Infinity", "NaN"),
        *(r'"\u0000"', r'"\ud800"', r'{"\ud800": 1}', r'{"\u0000": 1}'),
        *("[" * depth + "]" * depth for depth in (20, 300, 900, 100_000)),
    ],
)
def test_what_cannot_be_stored_is_refused(account: TestClient, value: str) -> None:
    made = ordered(account, "bare")
    spec = f'{{"configurations": ["rtx-4090"], "ttlSeconds": {value}}}'
    order = f'{{"name": "x", "path": "bare", "spec": {spec}}}'
    headers = {"content-type": "application/json"}
    for answer in (
        account.post("/v1/deployments", content=order, headers=headers),
        account.patch(
            f"/v1/deployments/{made['id']}", content=f'{{"spec": {spec}}}', headers=headers
        ),
    ):
        assert answer.status_code in (400, 422), answer.text


def test_an_account_that_cannot_pay_a_minute_orders_nothing_that_runs(
    shop: Shop, as_tenant: AsTenant, customer: Customer
) -> None:
    poor = as_tenant(shop.customer(10**9).token)
    refused(order(poor), 402, "insufficient_balance", None)
    ordered(poor, spec=DEDICATED | {"stopped": True})


def test_keys_are_added_and_removed_on_bare_endpoints_only(account: TestClient) -> None:
    made = ordered(account, "bare")
    url = f"/v1/deployments/{made['id']}/ssh-keys"
    added = account.post(url, json={"name": "laptop", "public_key": PUBLIC_KEY})
    assert added.json()["spec"]["sshKeys"] == [{"name": "laptop", "publicKey": PUBLIC_KEY}]
    wrong = account.post(url, json={"name": "x", "public_key": "ssh-ed25519 AAAA"})
    refused(wrong, 422, "invalid_parameter", "spec.sshKeys.1.publicKey")
    assert account.delete(f"{url}/laptop").json()["spec"]["sshKeys"] == []
    dedicated = ordered(account, name="other")
    url = f"/v1/deployments/{dedicated['id']}/ssh-keys"
    key = {"name": "laptop", "public_key": PUBLIC_KEY}
    refused(account.post(url, json=key), 422, "not_responsible", "name")


def test_anothers_deployment_is_not_there(
    shop: Shop, account: TestClient, as_tenant: AsTenant
) -> None:
    made = ordered(account, "bare")
    stranger = as_tenant(shop.customer().token)
    url = f"/v1/deployments/{made['id']}"
    key = {"name": "laptop", "public_key": PUBLIC_KEY}
    for answer in (
        stranger.get(url),
        stranger.patch(url, json={"spec": {}}),
        stranger.delete(url),
        stranger.get(f"{url}/usage"),
        stranger.get(f"{url}/events"),
        stranger.post(f"{url}/ssh-keys", json=key),
        stranger.delete(f"{url}/ssh-keys/laptop"),
    ):
        assert answer.status_code == 404
    assert stranger.get("/v1/deployments").json()["data"] == []


def test_a_hand_written_one_is_shown_and_not_changed(
    shop: Shop, account: TestClient, customer: Customer
) -> None:
    with shop.sessions.begin() as session:
        row = Deployment(
            tenant_id=customer.tenant_id,
            namespace="gitops",
            name="theirs",
            path="dedicated",
            managed="external",
            spec=DEDICATED,
            status={"phase": "Serving", "hourlyUsd": 12.5},
        )
        session.add(row)
    (shown,) = account.get("/v1/deployments").json()["data"]
    assert (shown["managed"], shown["phase"]) == ("external", "Serving")
    assert shown["status"] == {"phase": "Serving"}
    refused(change(account, shown, {"replicas": 2}), 409, "externally_managed", None)
    refused(account.delete(f"/v1/deployments/{row.id}"), 409, "externally_managed", None)


def live(shop: Shop, customer: Customer, seconds: float) -> None:
    start = datetime.now(UTC).timestamp()
    proof = Lease(
        uid=str(uuid.uuid4()),
        replica="bot-0",
        deployment=f"fp-{customer.tenant_id}/bot",
        path="dedicated",
        tenant_id=str(customer.tenant_id),
        configuration="h200-x4",
        gpus=4,
        spot=False,
        alive_since=start,
        published_at=start + seconds,
        ended=True,
    )
    end = datetime.fromtimestamp(start + seconds + 1, UTC)
    with shop.sessions.begin() as session:
        intervals.extend(session, [proof], end)
        intervals.charge(session, end)
        stops.stop_broke(session, end)


def test_a_deployment_tells_what_it_cost(
    shop: Shop, account: TestClient, customer: Customer
) -> None:
    made = ordered(account)
    for seconds in (90, 180):
        live(shop, customer, seconds)
    first = account.get(f"/v1/deployments/{made['id']}/usage", params={"limit": 1}).json()
    assert (first["billed_ms"], first["charge_usd"]) == (270_000, "1.50")
    query = {"limit": 1, "after": first["next"]}
    second = account.get(f"/v1/deployments/{made['id']}/usage", params=query).json()
    costs = [page["data"][0]["charge_usd"] for page in (first, second)]
    assert (costs, second["next"]) == (["1.00", "0.50"], None)
    line = account.get("/v1/account/ledger").json()["data"][0]
    assert (line["kind"], line["to_ms"], line["rate_usd_per_hour"]) == (
        "gpu_time",
        180_000,
        "20.00",
    )
    assert line["explanation"].startswith("180 s of h200-x4 on-demand (bot-0) at 20.00 USD")


def test_one_without_money_says_so_and_starts_again_with_money(
    shop: Shop, as_tenant: AsTenant, customer: Customer
) -> None:
    buyer = shop.customer(10**12)
    client = as_tenant(buyer.token)
    made = ordered(client)
    live(shop, buyer, 3600)
    shown = client.get(f"/v1/deployments/{made['id']}").json()
    assert shown["stopped_because"] == "insufficient_balance"
    refused(change(client, made, {"stopped": False}), 402, "insufficient_balance", None)
    shop.top_up(buyer, 10**12)
    started = change(client, made, {"stopped": False}).json()
    assert started["stopped_because"] is None
    assert shop.books().violations == []


def test_one_whose_tenant_is_suspended_says_so_to_admins(
    account: TestClient, admin: TestClient, customer: Customer
) -> None:
    made = ordered(account)
    path = f"/admin/v1/deployments/{made['id']}"
    assert admin.get(path).json()["stopped_because"] is None
    tenant = f"/admin/v1/tenants/{customer.tenant_id}"
    assert admin.patch(tenant, json={"status": "suspended"}).status_code == 200
    assert admin.get(path).json()["stopped_because"] == "tenant_suspended"
    (listed,) = admin.get("/admin/v1/deployments").json()["data"]
    assert listed["stopped_because"] == "tenant_suspended"


def test_events_are_newest_first(shop: Shop, account: TestClient, customer: Customer) -> None:
    made = ordered(account)
    status = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AsWanted",
                "lastTransitionTime": "2026-11-22T10:00:00Z",
            }
        ],
        "decisions": [
            {"at": "2026-11-22T11:00:00Z", "from": 1, "to": 2, "signal": "kv", "why": "full"}
        ],
    }
    with shop.sessions.begin() as session:
        session.get_one(Deployment, uuid.UUID(made["id"])).status = status
    told = account.get(f"/v1/deployments/{made['id']}/events").json()["data"]
    assert [it["event"] for it in told] == ["Scaled from 1 to 2", "Ready=True"]


def test_configurations_are_listed_with_prices(account: TestClient) -> None:
    listed = account.get("/v1/gpu-configurations").json()["data"]
    assert [(it["id"], it["usd_per_hour"], it["free_replicas"]) for it in listed] == [
        ("h200-x4", "20.00", 2),
        ("h200-x4-spot", "10.00", 2),
        ("rtx-4090", "0.50", 2),
    ]


def test_an_admin_makes_pools_and_sees_everything(
    admin: TestClient, account: TestClient, customer: Customer
) -> None:
    ordered(account)
    body = {"name": "pool", "path": "serverless", "spec": DEDICATED | {"budgetGPUs": 8}}
    made = admin.post("/admin/v1/deployments", json=body)
    assert made.status_code == 201, made.text
    assert (made.json()["tenant_id"], made.json()["namespace"]) == (None, "flashplane")
    listed = admin.get("/admin/v1/deployments").json()["data"]
    assert [it["name"] for it in listed] == ["bot", "pool"]
    theirs = admin.get("/admin/v1/deployments", params={"tenant_id": str(customer.tenant_id)})
    assert [it["name"] for it in theirs.json()["data"]] == ["bot"]
    url = f"/admin/v1/deployments/{made.json()['id']}"
    assert admin.patch(url, json={"spec": {"replicas": 2}}).json()["spec"]["replicas"] == 2
    assert admin.get(f"{url}/usage").json()["charge_p"] == "0"
    assert admin.get(f"{url}/events").json() == {"data": []}
    assert admin.delete(url).json()["state"] == "deleting"
    assert account.get(f"/v1/deployments/{made.json()['id']}").status_code == 404


def test_a_pool_has_no_tenant_and_others_have_one(admin: TestClient, customer: Customer) -> None:
    body = {"name": "pool", "path": "serverless", "spec": DEDICATED}
    owned = body | {"tenant_id": str(customer.tenant_id)}
    refused(admin.post("/admin/v1/deployments", json=owned), 422, "invalid_parameter", "tenant_id")
    body["path"] = "dedicated"
    refused(admin.post("/admin/v1/deployments", json=body), 422, "invalid_parameter", "tenant_id")


def test_gpu_prices_are_published_and_listed(admin: TestClient) -> None:
    body = {"configuration": "h200-x4", "kind": "spot", "usd_per_hour": "7.12"}
    made = admin.post("/admin/v1/gpu-prices", json=body)
    assert made.status_code == 201
    assert made.json()["usd_per_hour"] == "7.12"
    assert admin.get("/admin/v1/gpu-prices").json()["data"] == [made.json()]
    again = admin.post("/admin/v1/gpu-prices", json=made.json() | body)
    assert again.status_code == 422
    same = body | {"effective_from": made.json()["effective_from"]}
    assert admin.post("/admin/v1/gpu-prices", json=same).status_code == 409
    dear = body | {"usd_per_hour": "10001"}
    assert admin.post("/admin/v1/gpu-prices", json=dear).status_code == 422
