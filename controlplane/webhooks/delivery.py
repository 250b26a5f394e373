"""Delivers what is due: claims rows, sends outside any transaction, writes down what came of it.

A claim is a token with a lease in `next_attempt_at`: whoever dies while sending is replaced when it
runs out, and who comes back late with another's row changes nothing. Of a tenant few are claimed at
a time, so that slow endpoints of one hold up nobody else's. A receiver may hear a notice twice; its
`webhook-id` is the same each time. Called by the jobs.
"""

import asyncio
import json
import logging
import random
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, exc, func, select, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from controlplane.db import uuid7
from controlplane.metrics import WEBHOOK_ATTEMPTS
from controlplane.sealing import seal, unseal
from controlplane.webhooks import sending
from controlplane.webhooks.endpoints import PURPOSE
from controlplane.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookNotice
from controlplane.webhooks.sending import Outcome, Resolve
from controlplane.webhooks.signing import signed_headers

MOST_OF_TENANT = 4
LEASE = timedelta(seconds=60)
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 8 * 3600.0
# What a tenant can be shown of what it was told; notices stay, so that none happens twice.
KEPT = timedelta(days=30)
_FORGOTTEN_AT_ONCE = 1000
USER_AGENT = "Flashplane-Webhooks/1"
GONE = 410

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How deliveries are made; peppers newest first."""

    peppers: Sequence[bytes]
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    allow_loopback: bool = False
    resolve: Resolve = sending.resolve_by_system
    deadline_seconds: float = sending.DEADLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours to make until its lease runs out."""

    delivery_id: uuid.UUID
    claim: uuid.UUID
    url: str
    headers: dict[str, str]
    body: bytes


def claim(session: Session, terms: Terms, now: datetime, *, limit: int) -> list[Claimed]:
    """Claim what is due, oldest first, of each tenant as many as it has not on their way yet."""
    other = aliased(WebhookDelivery)
    on_their_way = (
        select(func.count())
        .where(
            other.tenant_id == WebhookDelivery.tenant_id,
            other.state == "pending",
            other.claim.is_not(None),
            other.next_attempt_at > now,
        )
        .scalar_subquery()
    )
    place = on_their_way + func.row_number().over(
        partition_by=WebhookDelivery.tenant_id, order_by=WebhookDelivery.next_attempt_at
    )
    due = (
        select(WebhookDelivery.id, place.label("place"))
        .where(WebhookDelivery.state == "pending", WebhookDelivery.next_attempt_at <= now)
        .subquery()
    )
    query = (
        select(WebhookDelivery, WebhookEndpoint, WebhookNotice)
        .join(due, due.c.id == WebhookDelivery.id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .join(WebhookNotice, WebhookNotice.id == WebhookDelivery.notice_id)
        .where(due.c.place <= MOST_OF_TENANT, WebhookDelivery.next_attempt_at <= now)
        .order_by(due.c.place, WebhookDelivery.next_attempt_at)
        .limit(limit)
        .with_for_update(of=WebhookDelivery, skip_locked=True)
    )
    claimed = []
    for delivery, endpoint, notice in session.execute(query):
        secret = _secret(terms.peppers, endpoint)
        if secret is None or not endpoint.enabled:
            why = "its secret was sealed with another pepper" if secret is None else "it is off"
            _end(delivery, "dead", f"not sent to the endpoint: {why}", now)
            continue
        delivery.claim = uuid7()
        delivery.attempts += 1
        delivery.next_attempt_at = now + LEASE
        body = _message(notice)
        headers = signed_headers(secret, str(notice.id), now, body)
        headers |= {"content-type": "application/json", "user-agent": USER_AGENT}
        claimed.append(Claimed(delivery.id, delivery.claim, endpoint.url, headers, body))
    return claimed


async def deliver(sessions: sessionmaker[Session], one: Claimed, terms: Terms) -> None:
    """Send what is claimed, and write down what came of it."""
    outcome = await sending.send(
        one.url,
        one.headers,
        one.body,
        tls=terms.tls,
        allow_loopback=terms.allow_loopback,
        resolve=terms.resolve,
        deadline_seconds=terms.deadline_seconds,
    )
    try:
        await asyncio.to_thread(_written, sessions, one, outcome)
    except exc.DBAPIError:
        _log.warning("webhook_outcome_lost")  # sent again when the lease ends


def settle(session: Session, claimed: Claimed, outcome: Outcome, now: datetime) -> None:
    """Write down what came of an attempt, unless another has claimed the delivery since."""
    delivery = session.scalar(
        select(WebhookDelivery)
        .where(WebhookDelivery.id == claimed.delivery_id, WebhookDelivery.claim == claimed.claim)
        .with_for_update()
    )
    if delivery is None:
        return
    delivery.last_status = outcome.status
    if outcome.delivered:
        _end(delivery, "delivered", None, now)
        return
    error = outcome.error or f"answered {outcome.status}"
    wait = timedelta(seconds=retry_seconds(delivery.attempts, random.uniform(0.8, 1.2)))
    if outcome.status == GONE:
        session.execute(
            update(WebhookEndpoint)
            .where(WebhookEndpoint.id == delivery.endpoint_id)
            .values(enabled=False)
        )
        _end(delivery, "dead", "answered 410 Gone: the endpoint was turned off", now)
    elif now + wait > delivery.give_up_at:
        _end(delivery, "dead", error, now)
    else:
        delivery.claim, delivery.last_error = None, error
        delivery.next_attempt_at = now + wait
        WEBHOOK_ATTEMPTS.labels("failed").inc()


def forget(session: Session, now: datetime) -> int:
    """Remove some deliveries that ended a month ago; return how many. Called by the jobs."""
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.state != "pending", WebhookDelivery.ended_at < now - KEPT)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    gone = session.scalars(
        delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id)
    )
    return len(gone.all())


def retry_seconds(attempts: int, jitter: float) -> float:
    """Return how long to wait after so many failed attempts: 5 s, times four each, at most 8 h."""
    longest: float = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 4.0 ** min(attempts - 1, 20))
    return longest * jitter


def _written(sessions: sessionmaker[Session], one: Claimed, outcome: Outcome) -> None:
    with sessions.begin() as session:
        settle(session, one, outcome, datetime.now(UTC))


def _message(notice: WebhookNotice) -> bytes:
    message = {
        "type": notice.kind,
        "timestamp": notice.created_at.astimezone(UTC).isoformat(),
        "data": notice.body,
    }
    return json.dumps(message, sort_keys=True).encode()


def _secret(peppers: Sequence[bytes], endpoint: WebhookEndpoint) -> bytes | None:
    """Return an endpoint's secret; one that the previous pepper sealed is sealed anew."""
    secret = unseal(peppers[:1], PURPOSE, endpoint.sealed_secret)
    if secret is None:
        secret = unseal(peppers[1:], PURPOSE, endpoint.sealed_secret)
        if secret is not None:
            endpoint.sealed_secret = seal(peppers[0], PURPOSE, secret)
    return secret


def _end(delivery: WebhookDelivery, state: str, error: str | None, now: datetime) -> None:
    WEBHOOK_ATTEMPTS.labels(state).inc()
    delivery.state, delivery.ended_at = state, now
    delivery.claim, delivery.last_error = None, error
