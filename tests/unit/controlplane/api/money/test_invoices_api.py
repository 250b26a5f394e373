"""Routes of invoices and payments: what they tell, whom, and what they refuse."""

import csv
import io
import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient
from support import invoicing
from support.shop import PEPPER, Customer, Shop

from controlplane.billing.invoices import months, signatures
from controlplane.settings import Settings
from controlplane.usage.records import TokenUsage

USD = 10**12
OLD, NEW = b"the old secret", b"the new secret"
USED = TokenUsage(hit_tokens=0, miss_tokens=100, output_tokens=10, reasoning_tokens=0)


@pytest.fixture
def settings(database_url: str) -> Settings:
    secrets = (SecretStr(OLD.decode()), SecretStr(NEW.decode()))
    return Settings(
        DATABASE_URL=database_url,
        key_pepper=SecretStr(PEPPER.decode()),
        payment_webhook_secrets=secrets,
    )


def use(shop: Shop, customer: Customer) -> None:
    shop.stage(shop.trace(customer, shop.hold(customer), USED))
    shop.settle()


def finish(shop: Shop) -> None:
    """Make this month's invoices final, as if it were over."""
    now = datetime.now(UTC)
    invoicing.run(shop.sessions, now)
    invoicing.run(shop.sessions, months.end(months.month_of(now)) + timedelta(days=1))


def postpaid(shop: Shop, limit_usd: int = 100) -> Customer:
    customer = shop.customer()
    invoicing.set_terms(shop.sessions, customer.tenant_id, limit_usd * USD)
    return customer


def deliver(tenant_app: FastAPI, event: dict[str, object], secret: bytes = NEW, age: int = 0):
    body = json.dumps(event).encode()
    header = signatures.sign(secret, body, int(time.time()) - age)
    headers = {"flashplane-signature": header}
    with TestClient(tenant_app, raise_server_exceptions=False) as client:
        return client.post("/webhooks/payments", content=body, headers=headers)


@pytest.fixture
def billed(shop: Shop) -> Customer:
    """A prepaid customer with one final invoice."""
    customer = shop.customer(10 * USD)
    use(shop, customer)
    finish(shop)
    return customer


def test_an_invoice_tells_its_lines_and_files(
    admin: TestClient, as_tenant: Callable[[str], TestClient], billed: Customer
) -> None:
    tenant = as_tenant(billed.token)
    (listed,) = tenant.get("/v1/account/invoices?state=final").json()["data"]
    shown = tenant.get(f"/v1/account/invoices/{listed['id']}").json()
    assert shown["standing"] == "paid"
    assert shown["number"].endswith("-000001")
    assert {line["meter"] for line in shown["lines"]} == {"miss", "output", "top_up"}
    for client, place in ((tenant, "/v1/account"), (admin, "/admin/v1")):
        for rendering in ("pdf", "html", "csv"):
            answer = client.get(f"{place}/invoices/{listed['id']}.{rendering}")
            assert answer.status_code == 200
            assert listed["number"] in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    exact_p = sum(int(row["amount_p"]) for row in rows if row["section"] != "funds")
    assert exact_p == int(shown["charges_p"]) == int(shown["carried_out_p"])


def test_a_stranger_finds_no_invoice(
    as_tenant: Callable[[str], TestClient], shop: Shop, billed: Customer
) -> None:
    (listed,) = as_tenant(billed.token).get("/v1/account/invoices?state=final").json()["data"]
    stranger = as_tenant(shop.customer().token)
    assert stranger.get("/v1/account/invoices").json()["data"] == []
    for place in (listed["id"], f"{listed['id']}.pdf", f"{listed['id']}.csv"):
        assert stranger.get(f"/v1/account/invoices/{place}").status_code == 404


def test_an_unfinished_month_is_previewed_and_not_rendered(
    as_tenant: Callable[[str], TestClient], shop: Shop
) -> None:
    customer = shop.customer(10 * USD)
    use(shop, customer)
    invoicing.run(shop.sessions, datetime.now(UTC))
    tenant = as_tenant(customer.token)
    (listed,) = tenant.get("/v1/account/invoices").json()["data"]
    assert (listed["state"], listed["total_usd"]) == ("open", None)
    assert tenant.get(f"/v1/account/invoices/{listed['id']}.pdf").status_code == 409
    preview = tenant.get("/v1/account/invoice-preview").json()
    assert preview["charges_p"] == str(100 * 140_000 + 10 * 280_000)
    assert preview["number"] is None


def test_a_profile_is_written_and_a_contradiction_refused(admin: TestClient, shop: Shop) -> None:
    place = f"/admin/v1/tenants/{shop.customer().tenant_id}/billing-profile"
    assert admin.get(place).json()["tax_basis_points"] == 0
    profile = {"legal_name": "Buy GmbH", "tax_name": "VAT", "tax_basis_points": 1900}
    assert admin.put(place, json=profile).json()["tax_basis_points"] == 1900
    assert admin.put(place, json=profile | {"legal_name": "Other"}).json()["legal_name"] == "Other"
    wrong = admin.put(place, json=profile | {"reverse_charge_note": "Article 196"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "tax_basis_points")
    assert admin.get(f"/admin/v1/tenants/{uuid.uuid4()}/billing-profile").status_code == 404


def test_an_event_tops_a_tenant_up_once_for_ever(
    tenant_app: FastAPI, as_tenant: Callable[[str], TestClient], shop: Shop
) -> None:
    customer = shop.customer()
    event = {
        "id": "evt_1",
        "type": "top_up",
        "tenant_id": str(customer.tenant_id),
        "amount_usd": "25.00",
    }
    answers = [deliver(tenant_app, event, secret) for secret in (OLD, NEW, NEW)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.json()["transaction_id"] for answer in answers}) == 1
    assert shop.balance(customer).balance_p == 25 * USD
    other = deliver(tenant_app, event | {"amount_usd": "26.00"})
    assert (other.status_code, other.json()["error"]["param"]) == (409, "id")
    assert shop.books().ok


@pytest.mark.parametrize("forgery", ["no secret", "too old", "ahead", "no header"])
def test_a_bad_signature_opens_nothing(tenant_app: FastAPI, shop: Shop, forgery: str) -> None:
    customer = shop.customer()
    event = {
        "id": "evt_1",
        "type": "top_up",
        "tenant_id": str(customer.tenant_id),
        "amount_usd": "25.00",
    }
    if forgery == "no header":
        with TestClient(tenant_app, raise_server_exceptions=False) as client:
            answer = client.post("/webhooks/payments", json=event)
    else:
        secret = b"a guess" if forgery == "no secret" else NEW
        answer = deliver(
            tenant_app, event, secret, age={"too old": 302, "ahead": -302}.get(forgery, 0)
        )
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_signature"
    assert shop.balance(customer).balance_p == 0


def test_a_signed_event_that_makes_no_sense_is_told_why(tenant_app: FastAPI) -> None:
    answer = deliver(tenant_app, {"id": "evt_1", "type": "refund"})
    assert answer.status_code == 422
    answer = deliver(tenant_app, {"id": "evt_1", "type": "invoice.paid", "amount_usd": "1"})
    assert answer.json()["error"]["param"] == "invoice.paid.invoice_id"
