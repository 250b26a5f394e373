"""Deliveries: signed, repeated, given up, fair, and each claimed by one at a time."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from support.polling import until
from support.receiver import Receiver, receiving
from support.shop import PEPPER, Shop

from controlplane.webhooks import delivery, endpoints
from controlplane.webhooks.courier import Courier
from controlplane.webhooks.delivery import MOST_OF_TENANT, Terms, retry_seconds
from controlplane.webhooks.models import WebhookDelivery, WebhookEndpoint
from controlplane.webhooks.outbox import notify
from controlplane.webhooks.sending import Outcome

TERMS = Terms(peppers=(PEPPER,), allow_loopback=True)
WAIT_SECONDS = 20.0


class Post:
    """Tenants with endpoints, and a courier."""

    def __init__(self, shop: Shop, terms: Terms) -> None:
        self.shop, self.sessions = shop, shop.sessions
        self.courier = Courier(shop.sessions, terms)

    def endpoint(self, url: str, tenant_id: uuid.UUID | None = None) -> tuple[uuid.UUID, str]:
        """Return the tenant and the secret of a new endpoint."""
        tenant_id = tenant_id or self.shop.customer().tenant_id
        with self.sessions.begin() as session:
            _, secret = endpoints.create(
                session, PEPPER, tenant_id=tenant_id, url=url, kinds=[], allow_loopback=True
            )
        return tenant_id, secret

    def notify(self, tenant_id: uuid.UUID, count: int = 1) -> None:
        with self.sessions.begin() as session:
            for _ in range(count):
                once = str(uuid.uuid4())
                notify(session, tenant_id=tenant_id, kind="funds.low", body={"h": 24}, once=once)

    def deliver(self) -> int:
        """Set off with what is due and wait until all of it has come back."""
        count = self.courier.tick()
        until(
            lambda: not any(it.claim for it in self.rows()),
            seconds=WAIT_SECONDS,
            what="every attempt has ended",
        )
        return count

    def rows(self) -> list[WebhookDelivery]:
        with self.sessions.begin() as session:
            return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))

    def make_due(self) -> None:
        with self.sessions.begin() as session:
            session.execute(update(WebhookDelivery).values(next_attempt_at=datetime.now(UTC)))


@pytest.fixture
def post(shop: Shop) -> Iterator[Post]:
    made = Post(shop, TERMS)
    yield made
    made.courier.close(WAIT_SECONDS)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_what_arrives_verifies_with_the_standards_own_library(
    post: Post, receiver: Receiver
) -> None:
    tenant_id, secret = post.endpoint(receiver.url)
    post.notify(tenant_id)
    assert post.deliver() == 1
    ((_, headers, body),) = receiver.heard
    assert Webhook(secret).verify(body, headers)["data"] == {"h": 24}
    assert json.loads(body)["type"] == "funds.low"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(b"24", b"25"), headers)
    (row,) = post.rows()
    assert (row.state, row.attempts, row.last_status) == ("delivered", 1, 204)
    assert post.deliver() == 0


def test_what_fails_is_repeated_under_the_same_id(post: Post, receiver: Receiver) -> None:
    post.notify(post.endpoint(receiver.url)[0])
    receiver.status = 500
    post.deliver()
    (row,) = post.rows()
    assert (row.state, row.last_error) == ("pending", "answered 500")
    assert row.next_attempt_at > datetime.now(UTC)
    receiver.status = 200
    post.make_due()
    post.deliver()
    assert [row.state for row in post.rows()] == ["delivered"]
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


def test_what_fails_for_72_hours_is_dead(post: Post, receiver: Receiver) -> None:
    post.notify(post.endpoint(receiver.url)[0])
    receiver.status = 503
    with post.sessions.begin() as session:
        session.execute(
            update(WebhookDelivery).values(give_up_at=datetime.now(UTC) + timedelta(seconds=1))
        )
    post.deliver()
    (row,) = post.rows()
    assert (row.state, row.last_status, row.last_error) == ("dead", 503, "answered 503")


def test_attempts_are_counted_by_what_came_of_them(post: Post, receiver: Receiver) -> None:
    def counted() -> dict[str, float]:
        name = "flashplane_webhook_attempts_total"
        return {
            outcome: REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0
            for outcome in ("delivered", "failed", "dead")
        }

    before = counted()
    post.notify(post.endpoint(receiver.url)[0])
    receiver.status = 503
    post.deliver()
    receiver.status = 200
    post.make_due()
    post.deliver()
    after = counted()
    assert {it: after[it] - before[it] for it in after} == {"delivered": 1, "failed": 1, "dead": 0}


def test_an_endpoint_that_is_gone_for_good_is_turned_off(post: Post, receiver: Receiver) -> None:
    tenant_id, _ = post.endpoint(receiver.url)
    receiver.status = 410
    post.notify(tenant_id)
    post.deliver()
    with post.sessions.begin() as session:
        assert session.scalars(select(WebhookEndpoint.enabled)).all() == [False]
    assert [row.state for row in post.rows()] == ["dead"]


def test_one_slow_tenant_holds_up_nobody_else(post: Post, receiver: Receiver) -> None:
    receiver.answering.clear()
    slow = post.endpoint(receiver.url)[0]
    post.notify(slow, 3 * MOST_OF_TENANT)
    with receiving() as quick:
        other = post.endpoint(quick.url)[0]
        assert post.courier.tick() == MOST_OF_TENANT
        assert post.courier.tick() == 0
        post.notify(other, 2)
        assert post.courier.tick() == 2
        until(lambda: len(quick.heard) == 2, seconds=WAIT_SECONDS, what="both arrived")
        receiver.answering.set()
        until(
            lambda: sum(row.state == "delivered" for row in post.rows()) == MOST_OF_TENANT + 2,
            seconds=WAIT_SECONDS,
            what="the slow ones arrived",
        )


def test_a_claim_is_ones_own_until_its_lease_ends(post: Post, receiver: Receiver) -> None:
    post.notify(post.endpoint(receiver.url)[0])
    now = datetime.now(UTC)
    with post.sessions.begin() as session:
        (first,) = delivery.claim(session, TERMS, now, limit=9)
    with post.sessions.begin() as session:
        assert delivery.claim(session, TERMS, now, limit=9) == []
        later = now + delivery.LEASE + timedelta(seconds=1)
        (second,) = delivery.claim(session, TERMS, later, limit=9)
    with post.sessions.begin() as session:
        # Whoever comes back late with another's row changes nothing.
        delivery.settle(session, first, Outcome(200, None), now)
    (row,) = post.rows()
    assert (row.state, row.claim, row.attempts) == ("pending", second.claim, 2)


def test_the_secret_is_not_in_the_database(post: Post, receiver: Receiver) -> None:
    _, secret = post.endpoint(receiver.url)
    with post.sessions.begin() as session:
        (sealed,) = session.scalars(select(WebhookEndpoint.sealed_secret))
    assert secret.encode() not in sealed


def test_a_secret_of_the_pepper_before_is_sealed_anew(post: Post, receiver: Receiver) -> None:
    tenant_id, secret = post.endpoint(receiver.url)
    for peppers in ((b"new", PEPPER), (b"new",)):
        post.notify(tenant_id)
        with post.sessions.begin() as session:
            (claimed,) = delivery.claim(session, Terms(peppers), datetime.now(UTC), limit=9)
        Webhook(secret).verify(claimed.body, claimed.headers)


def test_a_secret_of_an_unknown_pepper_ends_the_delivery_in_a_sentence(
    post: Post, receiver: Receiver
) -> None:
    post.notify(post.endpoint(receiver.url)[0])
    with post.sessions.begin() as session:
        assert delivery.claim(session, Terms((b"other",)), datetime.now(UTC), limit=9) == []
    (row,) = post.rows()
    assert row.state == "dead"
    assert "sealed with another pepper" in str(row.last_error)


def test_retries_wait_longer_each_time_and_at_most_8_hours() -> None:
    waits = [retry_seconds(attempts, 1.0) for attempts in range(1, 12)]
    assert waits[:4] == [5, 20, 80, 320]
    assert waits == sorted(waits)
    assert retry_seconds(10_000, 1.0) == 8 * 3600
