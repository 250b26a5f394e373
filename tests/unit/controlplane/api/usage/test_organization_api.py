"""The organization's usage and costs: OpenAI's shape, exact sums, nobody else's."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient
from support.shop import MODEL, Customer, Shop, cost_p

from controlplane.accounts import funds, ledger
from controlplane.accounts.ledger import Entry, Posting
from controlplane.money import p_to_usd
from controlplane.tenants import keys
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)
AsTenant = Callable[[str], TestClient]
COMPLETIONS = "/v1/organization/usage/completions"
COSTS = "/v1/organization/costs"


def since(days: int = 0) -> int:
    return int(time.time()) - days * 86_400


def used(shop: Shop, customer: Customer) -> None:
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()


def booked(shop: Shop, customer: Customer, kind: str, amount_p: int) -> None:
    with shop.sessions.begin() as session:
        accounts = funds.lock(session, tenant_ids=[customer.tenant_id], platform=["revenue"])
        account, ours = accounts.by_tenant[customer.tenant_id], accounts.by_kind["revenue"]
        entries = [Entry(account, amount_p), Entry(ours, -amount_p)]
        ledger.post(session, [Posting(kind, customer.tenant_id, entries, "test", "test")])


@pytest.fixture
def customer(shop: Shop) -> Customer:
    customer = shop.customer(10**12)
    used(shop, customer)
    used(shop, customer)
    return customer


@pytest.fixture
def account(as_tenant: AsTenant, customer: Customer) -> TestClient:
    return as_tenant(customer.token)


def results(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [result for bucket in answer.json()["data"] for result in bucket["results"]]


def test_a_days_usage(account: TestClient) -> None:
    answer = account.get(COMPLETIONS, params={"start_time": since(1)}).json()
    assert (answer["object"], answer["has_more"], answer["next_page"]) == ("page", False, None)
    yesterday, today = answer["data"][-2:]
    assert yesterday["results"] == []
    assert today["end_time"] - today["start_time"] == 86_400
    assert today["start_time"] % 86_400 == 0
    assert today["results"] == [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": 60,
            "input_cached_tokens": 20,
            "input_uncached_tokens": 40,
            "output_tokens": 10,
            "output_reasoning_tokens": 4,
            "num_model_requests": 2,
            "cost_usd": p_to_usd(2 * cost_p(USAGE)),
            "cost_p": str(2 * cost_p(USAGE)),
            "project_id": None,
            "api_key_id": None,
            "model": None,
            "path": None,
            "band": None,
            "thinking": None,
        }
    ]


def test_usage_is_grouped_and_filtered(shop: Shop, customer: Customer, account: TestClient) -> None:
    with shop.sessions.begin() as session:
        second, _ = keys.issue(session, b"x", tenant_id=customer.tenant_id, name="second")
    other = Customer(customer.tenant_id, second.project_id, second.id, "")
    used(shop, other)
    asked = {"start_time": since(), "group_by": ["api_key_id", "model", "thinking"]}
    found = {it["api_key_id"]: it for it in results(account.get(COMPLETIONS, params=asked))}
    assert {key: it["num_model_requests"] for key, it in found.items()} == {
        str(customer.api_key_id): 2,
        str(second.id): 1,
    }
    assert {(it["model"], it["thinking"], it["path"]) for it in found.values()} == {
        (MODEL, False, None)
    }
    (one,) = results(account.get(COMPLETIONS, params={**asked, "api_key_ids": [str(second.id)]}))
    assert one["num_model_requests"] == 1
    assert results(account.get(COMPLETIONS, params={**asked, "models": ["another"]})) == []


def test_openais_client_reads_usage_and_costs(
    account: TestClient, customer: Customer, shop: Shop
) -> None:
    client = openai.OpenAI(
        base_url="http://testserver/v1", admin_api_key=customer.token, http_client=account
    )
    usage = client.admin.organization.usage.completions(
        start_time=since(), bucket_width="1h", group_by=["model", "project_id"]
    )
    (found,) = [result for bucket in usage.data for result in bucket.results]
    assert found.object == "organization.usage.completions.result"
    assert (found.input_tokens, found.output_tokens, found.model) == (60, 10, MODEL)
    assert found.project_id == str(customer.project_id)
    spent = client.admin.organization.usage.costs(
        start_time=since(), group_by=["line_item"], project_ids=[str(customer.project_id)]
    )
    (cost,) = [result for bucket in spent.data for result in bucket.results]
    assert cost.object == "organization.costs.result"
    assert cost.amount is not None
    assert cost.amount.value == pytest.approx(2 * cost_p(USAGE) / 1e12)
    assert (cost.amount.currency, cost.line_item) == ("usd", f"{MODEL}, serverless")


def test_pages_go_on_where_the_one_before_ended(account: TestClient) -> None:
    asked = {"start_time": since(), "end_time": since() + 7200, "bucket_width": "1m", "limit": 50}
    seen: list[dict[str, Any]] = []
    page: dict[str, str] = {}
    while True:
        answer = account.get(COMPLETIONS, params={**asked, **page}).json()
        seen += answer["data"]
        if not answer["has_more"]:
            break
        page = {"page": answer["next_page"]}
    assert [it["start_time"] for it in seen[1:]] == [it["end_time"] for it in seen[:-1]]
    assert sum(it["num_model_requests"] for bucket in seen for it in bucket["results"]) == 2


def test_costs_are_all_that_was_spent_less_what_was_given_back(
    shop: Shop, customer: Customer, account: TestClient
) -> None:
    booked(shop, customer, "commitment", -7_000)
    booked(shop, customer, "credit_note", 500)
    shop.top_up(customer, 10**9)
    asked = {"start_time": since(), "group_by": "line_item"}
    found = {it["line_item"]: it["amount_p"] for it in results(account.get(COSTS, params=asked))}
    assert found == {
        f"{MODEL}, serverless": str(2 * cost_p(USAGE)),
        "commitment": "7000",
        "credit note": "-500",
    }
    (total,) = results(account.get(COSTS, params={"start_time": since()}))
    assert total["amount_p"] == str(2 * cost_p(USAGE) + 6_500)
    spent_p = 10**12 + 10**9 - shop.balance(customer).balance_p
    assert int(total["amount_p"]) == spent_p


BAD_QUESTIONS: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETIONS, {}, "start_time"),
    (COMPLETIONS, {"start_time": "now"}, "start_time"),
    (COMPLETIONS, {"start_time": -1}, "start_time"),
    (COMPLETIONS, {"start_time": 10**15}, "start_time"),
    (COMPLETIONS, {"start_time": 60, "end_time": 60}, "end_time"),
    (COMPLETIONS, {"start_time": 60, "end_time": 0}, "end_time"),
    (COMPLETIONS, {"start_time": 0, "bucket_width": "1s"}, "bucket_width"),
    (COMPLETIONS, {"start_time": 0, "bucket_width": "1m", "limit": 1441}, "limit"),
    (COMPLETIONS, {"start_time": 0, "limit": 32}, "limit"),
    (COMPLETIONS, {"start_time": 0, "limit": 0}, "limit"),
    (COMPLETIONS, {"start_time": 0, "group_by": "user_id"}, "group_by.0"),
    (COMPLETIONS, {"start_time": 0, "group_by[]": "line_item"}, "group_by[].0"),
    (COMPLETIONS, {"start_time": 0, "project_ids": "x"}, "project_ids.0"),
    (COMPLETIONS, {"start_time": 0, "page": "page_1"}, "page"),
    (COMPLETIONS, {"start_time": 0, "page": "x" * 100}, "page"),
    (COMPLETIONS, {"start_time": 0, "user_ids": "x"}, "user_ids"),
    (COSTS, {"start_time": 0, "bucket_width": "1h"}, "bucket_width"),
    (COSTS, {"start_time": 0, "limit": 181}, "limit"),
    (COSTS, {"start_time": 0, "group_by": "model"}, "group_by.0"),
    (COSTS, {"start_time": 0, "models": "m"}, "models"),
]


def test_a_bad_question_is_told_so(account: TestClient) -> None:
    for path, asked, param in BAD_QUESTIONS:
        answer = account.get(path, params=asked)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), asked


def test_a_tenant_sees_its_own_alone(
    shop: Shop, customer: Customer, as_tenant: AsTenant, admin: TestClient
) -> None:
    stranger = as_tenant(shop.customer().token)
    asked = {"start_time": since(), "project_ids": [str(customer.project_id)]}
    assert results(stranger.get(COMPLETIONS, params=asked)) == []
    assert results(stranger.get(COSTS, params=asked)) == []
    of_it = f"/admin/v1/tenants/{customer.tenant_id}/organization"
    (found,) = results(admin.get(f"{of_it}/usage/completions", params=asked))
    assert found["num_model_requests"] == 2
    (cost,) = results(admin.get(f"{of_it}/costs", params=asked))
    assert cost["amount_p"] == str(2 * cost_p(USAGE))
    nobody = f"/admin/v1/tenants/{uuid.uuid4()}/organization"
    for path in ("usage/completions", "costs"):
        assert admin.get(f"{nobody}/{path}", params=asked).status_code == 404
