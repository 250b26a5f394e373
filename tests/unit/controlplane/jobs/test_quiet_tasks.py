"""Tasks that nobody waits for, each run once as the worker runs it, on real servers."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select, text
from standardwebhooks import Webhook
from support.receiver import receiving
from support.shop import PEPPER, Customer, Shop

from controlplane.audit import anchors
from controlplane.audit.chain import record
from controlplane.webhooks import delivery, endpoints
from controlplane.webhooks.models import WebhookDelivery
from controlplane.webhooks.outbox import notify

# The worker's process imports the module with its settings; so does this one.
RUN = "from controlplane.jobs import app; app.{task}(); {after}"


def run(task: str, database_url: str, redis_url: str, after: str = "", **more: str) -> None:
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLASHPLANE_KEY_PEPPER": PEPPER.decode(),
        **more,
    }
    code = RUN.format(task=task, after=after)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def told(shop: Shop, url: str) -> tuple[Customer, str]:
    """A tenant with an endpoint that one notice is on its way to; and the endpoint's secret."""
    customer = shop.customer()
    of_it = {"tenant_id": customer.tenant_id}
    with shop.sessions.begin() as session:
        _, secret = endpoints.create(
            session, PEPPER, url=url, kinds=[], allow_loopback=True, **of_it
        )
        notify(session, kind="funds.low", body={"hours": 24}, once="a", **of_it)
    return customer, secret


def test_webhooks_are_delivered_signed(shop: Shop, database_url: str, redis_url: str) -> None:
    with receiving() as receiver:
        _, secret = told(shop, receiver.url)
        run(
            "deliver_webhooks", database_url, redis_url, after="app._courier().close(60)",
            FLASHPLANE_WEBHOOKS_TO_LOOPBACK="true",
        )  # fmt: skip
        ((_, headers, body),) = receiver.heard
    assert Webhook(secret).verify(body, headers)["data"] == {"hours": 24}
    with shop.sessions.begin() as session:
        assert session.scalars(select(WebhookDelivery.state)).all() == ["delivered"]


def test_audit_chains_are_anchored_outside_the_database(
    shop: Shop, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    tenant_id = shop.customer().tenant_id
    with shop.sessions.begin() as session:
        record(session, tenant_id=tenant_id, actor="a", action="a", subject="a", details={})
    file = tmp_path / "anchors"
    run("anchor_audit", database_url, redis_url, FLASHPLANE_AUDIT_ANCHOR_FILE=str(file))
    found = anchors.read(file, public_key=None)
    assert found.findings == ()
    assert {chain: list(seqs) for chain, seqs in found.vouched.items()} == {tenant_id: [1]}
    assert json.loads(file.read_text())["key"] == found.public_key


def test_deliveries_are_forgotten_a_month_after_their_end(shop: Shop) -> None:
    tenant_id = told(shop, "https://example.com")[0].tenant_id
    now = datetime.now(UTC)
    with shop.sessions.begin() as session:
        assert delivery.forget(session, now + timedelta(days=90)) == 0  # not ended yet
        session.execute(text("UPDATE webhook_deliveries SET state = 'dead', ended_at = now()"))
    with shop.sessions.begin() as session:
        assert delivery.forget(session, now + timedelta(days=29)) == 0
        assert delivery.forget(session, now + timedelta(days=31)) == 1
        notify(session, tenant_id=tenant_id, kind="funds.low", body={}, once="a")
        assert session.scalars(select(WebhookDelivery)).all() == []
