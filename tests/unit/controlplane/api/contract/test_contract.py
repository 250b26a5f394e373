"""What every mutating route keeps: once per Idempotency-Key, If-Match, one transaction."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text
from starlette.testclient import TestClient
from support.shop import PEPPER, Shop

from controlplane.api.app import create_admin_app
from controlplane.audit.models import AuditEvent
from controlplane.audit.personal import LEFT_OUT
from controlplane.settings import Settings
from controlplane.tenants import answers, keys
from controlplane.tenants.models import GivenAnswer, Tenant

AsTenant = Callable[[str], TestClient]
ONCE = {"idempotency-key": "once"}


def tenant_count(shop: Shop) -> int:
    with shop.sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(Tenant)) or 0


def test_the_same_request_again_gets_the_same_answer(admin: TestClient, shop: Shop) -> None:
    first, again = (
        admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE) for _ in range(2)
    )
    assert (again.status_code, again.content) == (201, first.content)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert tenant_count(shop) == 1


def test_a_lost_answer_with_a_key_can_be_had_again(as_tenant: AsTenant, shop: Shop) -> None:
    client = as_tenant(shop.customer().token)
    first, again = (client.post("/v1/account/keys", json={}, headers=ONCE).json() for _ in range(2))
    assert first == again
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, PEPPER, again["key"]) is not None
        (kept,) = session.scalars(select(GivenAnswer.body))
        assert again["key"].encode() not in kept


@pytest.mark.parametrize("change", ["body", "query"])
def test_another_request_with_the_same_key_is_refused(admin: TestClient, change: str) -> None:
    admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE)
    url = "/admin/v1/tenants" + ("?x=1" if change == "query" else "")
    name = "other" if change == "body" else "acme"
    answer = admin.post(url, json={"name": name}, headers=ONCE)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "idempotency_key_reused"


def test_keys_of_two_callers_are_two_keys(as_tenant: AsTenant, shop: Shop) -> None:
    made = [
        as_tenant(shop.customer().token).post("/v1/account/keys", json={}, headers=ONCE).json()
        for _ in range(2)
    ]
    assert made[0]["key"] != made[1]["key"]


def test_what_was_refused_may_be_tried_again(admin: TestClient) -> None:
    path = "/admin/v1/tenants"
    assert admin.post(path, json={"name": ""}, headers=ONCE).status_code == 422
    assert admin.post(path, json={"name": "acme"}, headers=ONCE).status_code == 201


def test_of_requests_at_the_same_moment_one_is_done(admin: TestClient, shop: Shop) -> None:
    def create(_: int) -> tuple[int, str]:
        answer = admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE)
        return answer.status_code, answer.headers.get("retry-after", "")

    with ThreadPoolExecutor(6) as threads:
        outcomes = set(threads.map(create, range(12)))
    assert outcomes <= {(201, ""), (409, "1")}
    assert (201, "") in outcomes
    assert tenant_count(shop) == 1


def test_a_request_that_another_is_doing_is_told_to_wait(admin: TestClient, shop: Shop) -> None:
    admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE)
    with shop.sessions() as session:
        (row,) = session.scalars(select(GivenAnswer))
        sent = answers.Sent(row.id, row.fingerprint)
        assert answers.given(session, PEPPER, sent) is not None  # and stays in its transaction
        answer = admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE)
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    assert answer.json()["error"]["code"] == "still_running"


@pytest.mark.parametrize("key", ["", "with blank", "x" * 201, "\x7f"])
def test_a_key_out_of_its_domain_is_a_422(admin: TestClient, key: str) -> None:
    headers = {"idempotency-key": key}
    answer = admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_an_answer_is_forgotten_after_a_day(admin: TestClient, shop: Shop) -> None:
    path = "/admin/v1/models/m"
    body = {"description": "first"}
    assert admin.put(path, json=body, headers=ONCE).status_code == 200
    with shop.sessions.begin() as session:
        assert answers.forget(session, datetime.now(UTC)) == 0
        session.execute(text("UPDATE given_answers SET created_at = now() - interval '25 hours'"))
    other = admin.put(path, json={"description": "second"}, headers=ONCE)
    assert other.json()["description"] == "second"
    with shop.sessions.begin() as session:
        assert answers.forget(session, datetime.now(UTC) + timedelta(hours=25)) == 1


def test_an_answer_under_another_pepper_is_lost_but_not_done_again(
    admin: TestClient, shop: Shop
) -> None:
    admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE)
    with shop.sessions.begin() as session:
        (row,) = session.scalars(select(GivenAnswer))
        answers.keep(session, b"another", answers.Sent(row.id, row.fingerprint), 201, b"{}")
    answer = admin.post("/admin/v1/tenants", json={"name": "acme"}, headers=ONCE)
    assert answer.json()["error"]["code"] == "answer_lost"


def test_a_thing_is_changed_only_as_it_was_shown(as_tenant: AsTenant, shop: Shop) -> None:
    customer = shop.customer()
    client = as_tenant(customer.token)
    made = client.post("/v1/projects", json={"name": "one"}).json()
    path = f"/v1/projects/{made['id']}"
    shown = client.get(path).headers["etag"]
    changed = client.patch(path, json={"name": "two"}, headers={"if-match": shown})
    assert changed.status_code == 200
    assert changed.headers["etag"] == client.get(path).headers["etag"] != shown
    stale = client.patch(path, json={"name": "three"}, headers={"if-match": shown})
    assert (stale.status_code, stale.json()["error"]["code"]) == (412, "precondition_failed")
    assert client.get(path).json()["name"] == "two"
    anyhow = client.patch(path, json={"name": "three"}, headers={"if-match": "*"})
    assert anyhow.json()["name"] == "three"


def test_of_two_that_change_what_they_saw_one_wins(as_tenant: AsTenant, shop: Shop) -> None:
    client = as_tenant(shop.customer().token)
    path = f"/v1/projects/{client.post('/v1/projects', json={'name': 'p'}).json()['id']}"
    seen = {"if-match": client.get(path).headers["etag"]}

    def change(number: int) -> int:
        return client.patch(path, json={"name": f"p{number}"}, headers=seen).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = sorted(threads.map(change, range(4)))
    assert statuses == [200, 412, 412, 412]


def test_using_a_key_does_not_change_it(as_tenant: AsTenant, shop: Shop) -> None:
    customer = shop.customer()
    client = as_tenant(customer.token)
    path = f"/v1/account/keys/{customer.api_key_id}"
    first = client.get(path)
    with shop.sessions.begin() as session:
        session.execute(text("UPDATE api_keys SET last_used_at = '2020-01-01T00:00Z'"))
    second = client.get(path)
    assert first.json()["last_used_at"] != second.json()["last_used_at"] != None  # noqa: E711
    assert first.headers["etag"] == second.headers["etag"]


def test_a_change_leaves_a_line_in_the_audit_log_without_secrets(
    as_tenant: AsTenant, shop: Shop
) -> None:
    customer = shop.customer()
    client = as_tenant(customer.token)
    made = client.post("/v1/account/keys", json={"name": "ci"}).json()
    client.post("/v1/account/keys", json={"name": ""})
    client.get("/v1/account/keys")
    with shop.sessions.begin() as session:
        (event,) = session.scalars(select(AuditEvent))
        assert event.tenant_id == customer.tenant_id
        assert event.actor == f"api_key:{customer.api_key_id}"
        assert event.action == "issue_key"
        assert event.subject.endswith(made["id"])
        assert event.details["body"] == {"name": LEFT_OUT}
        assert made["key"] not in json.dumps(event.details)


def test_the_platforms_changes_are_told_to_the_tenant_they_concern(
    admin: TestClient, shop: Shop
) -> None:
    tenant_id = admin.post("/admin/v1/tenants", json={"name": "acme"}).json()["id"]
    admin.patch(f"/admin/v1/tenants/{tenant_id}", json={"status": "suspended"})
    admin.put("/admin/v1/models/m", json={})
    with shop.sessions.begin() as session:
        told = session.execute(select(AuditEvent.action, AuditEvent.tenant_id)).all()
    assert {(action, str(whose)) for action, whose in told} == {
        ("create_tenant", tenant_id),
        ("set_tenant_status", tenant_id),
        ("put_model", "None"),
    }


def test_more_requests_than_threads_wait_for_one_connection(
    settings: Settings, admin_key: str
) -> None:
    app = create_admin_app(settings.model_copy(update={"database_pool_size": 1}))
    with TestClient(app, headers={"authorization": f"Bearer {admin_key}"}) as client:

        def look(_: int) -> int:
            return client.get("/admin/v1/tenants").status_code

        with ThreadPoolExecutor(60) as threads:
            assert set(threads.map(look, range(60))) == {200}
