"""Money that admins move through the REST API."""

import pytest
from starlette.testclient import TestClient
from support.shop import Customer, Shop, cost_p

from controlplane.money import p_to_usd
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)


def path(customer: Customer, what: str) -> str:
    return f"/admin/v1/tenants/{customer.tenant_id}/{what}"


def charged(admin: TestClient, shop: Shop, customer: Customer) -> str:
    """Serve a request; return the charge's transaction as the ledger lists it."""
    shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
    shop.settle()
    query = {"tenant_id": str(customer.tenant_id)}
    lines = admin.get("/admin/v1/ledger", params=query).json()["data"]
    return next(line["transaction_id"] for line in lines if line["kind"] == "charge")


def test_a_grant_is_told_with_the_money_after_it(admin: TestClient, shop: Shop) -> None:
    customer = shop.customer(10**12)
    body = {"amount_usd": "5", "reason": "welcome"}
    answer = admin.post(path(customer, "grants"), json=body)
    assert answer.status_code == 201
    told = answer.json()
    assert (told["kind"], told["amount_usd"], told["author"]) == ("grant", "5.00", "root")
    assert (told["balance"]["balance_usd"], told["balance"]["granted_usd"]) == ("6.00", "5.00")


@pytest.mark.parametrize(
    ("what", "kind"),
    [("refunds", "refund"), ("waivers", "waiver"), ("credit-notes", "credit_note")],
)
def test_a_charge_comes_back_whole_and_once(
    admin: TestClient, shop: Shop, what: str, kind: str
) -> None:
    customer = shop.customer(10**12)
    body = {"transaction_id": charged(admin, shop, customer), "reason": "wrong"}
    told = admin.post(path(customer, what), json=body).json()
    assert (told["kind"], told["corrects_id"]) == (kind, body["transaction_id"])
    assert told["amount_usd"] == p_to_usd(cost_p(USAGE))
    assert told["balance"]["balance_usd"] == "1.00"
    again = admin.post(path(customer, what), json=body)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


def test_an_adjustment_deducts_no_more_than_there_is(admin: TestClient, shop: Shop) -> None:
    customer = shop.customer(10**12)
    less = {"amount_usd": "-0.25", "reason": "paid twice"}
    told = admin.post(path(customer, "adjustments"), json=less).json()
    assert (told["amount_usd"], told["balance"]["balance_usd"]) == ("-0.25", "0.75")
    answer = admin.post(path(customer, "adjustments"), json=less | {"amount_usd": "-0.76"})
    assert answer.status_code == 402


def test_credit_is_given_and_not_taken_below_what_is_used(admin: TestClient, shop: Shop) -> None:
    customer = shop.customer()
    body = {"terms": "postpaid", "credit_limit_usd": "1"}
    answer = admin.put(path(customer, "credit-terms"), json=body)
    assert (answer.status_code, answer.json()["available_usd"]) == (200, "1.00")
    charged(admin, shop, customer)
    answer = admin.put(path(customer, "credit-terms"), json={"terms": "prepaid"})
    assert answer.status_code == 409
    assert p_to_usd(cost_p(USAGE)) in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("what", "body", "param"),
    [
        ("grants", {"amount_usd": "0", "reason": "r"}, "amount_usd"),
        ("grants", {"amount_usd": "-1", "reason": "r"}, "amount_usd"),
        ("grants", {"amount_usd": "99999999", "reason": "r"}, "amount_usd"),
        ("grants", {"amount_usd": "1"}, "reason"),
        ("grants", {"amount_usd": "1", "reason": " "}, "reason"),
        ("refunds", {"amount_usd": "1", "reason": "r"}, "transaction_id"),
        ("credit-notes", {"reason": "r"}, "amount_usd"),
        ("adjustments", {"amount_usd": "0", "reason": "r"}, "amount_usd"),
    ],
)
def test_what_moves_no_money_is_refused(
    admin: TestClient, shop: Shop, what: str, body: dict[str, str], param: str
) -> None:
    answer = admin.post(path(shop.customer(), what), json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
