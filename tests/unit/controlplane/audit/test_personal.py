"""What the audit log keeps for ever tells of no person."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import select
from starlette.testclient import TestClient
from support.everything import everything
from support.shop import PEPPER, Shop

from controlplane.api.app import create_admin_app, create_tenant_app
from controlplane.audit.models import AuditEvent
from controlplane.audit.personal import KEPT, LEFT_OUT, impersonal
from controlplane.settings import Settings
from controlplane.tenants import keys

CANARY = "rumpelstiltskin"
PERSONAL = {"name", "email", "legal_name", "address", "tax_id", "description", "url", "spec"}


@pytest.fixture
def client(database_url: str) -> Iterator[Callable[[str], TestClient]]:
    settings = Settings(DATABASE_URL=database_url, key_pepper=SecretStr(PEPPER.decode()))
    apps = {"dsa": create_admin_app(settings), "dsf": create_tenant_app(settings)}
    opened: list[TestClient] = []

    def call_as(token: str) -> TestClient:
        app: FastAPI = apps[token.partition("_")[0]]
        client = TestClient(app, headers={"authorization": f"Bearer {token}"})
        opened.append(client.__enter__())
        return client

    yield call_as
    for one in opened:
        one.__exit__()


def test_texts_are_kept_under_known_names_alone() -> None:
    told: dict[str, Any] = {
        "name": CANARY, "role": "owner", "deep": [{"email": CANARY, "limit_usd": "1.5"}],
        "kinds": ["a", "b"], "notes": [CANARY], "replicas": 3, "enabled": True, "until": None,
    }  # fmt: skip
    assert impersonal(told) == {
        "name": LEFT_OUT, "role": "owner", "deep": [{"email": LEFT_OUT, "limit_usd": "1.5"}],
        "kinds": ["a", "b"], "notes": [LEFT_OUT], "replicas": 3, "enabled": True, "until": None,
    }  # fmt: skip
    assert not PERSONAL & KEPT


def test_once_a_tenant_is_erased_nothing_tells_what_it_worded(
    client: Callable[[str], TestClient], shop: Shop
) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        _, token = keys.issue_admin(session, PEPPER, name="root")
    owner, admin = client(customer.token), client(token)
    of_it = f"/admin/v1/tenants/{customer.tenant_id}"
    profile = {"legal_name": CANARY, "address": CANARY, "tax_id": CANARY}
    done = [
        owner.post("/v1/members", json={"email": f"{CANARY}@x.test", "role": "viewer"}),
        owner.post("/v1/account/keys", json={"name": CANARY}),
        owner.post("/v1/projects", json={"name": CANARY}),
        owner.post("/v1/account/webhooks", json={"url": f"https://{CANARY}.test/", "kinds": []}),
        admin.put(f"{of_it}/billing-profile", json=profile),
        admin.patch(of_it, json={"status": "active"}),
    ]
    assert [it.status_code for it in done] == [201, 201, 201, 201, 200, 200], done
    with shop.sessions.begin() as session:
        events = session.scalars(select(AuditEvent)).all()
        told = json.dumps([[it.actor, it.subject, it.details] for it in events])
    assert len(events) == len(done)
    assert CANARY not in told
    assert CANARY in everything(shop)
    assert admin.delete(of_it).status_code == 200
    assert CANARY not in everything(shop)
