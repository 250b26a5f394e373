"""Notices: put out once, in their transaction, to the endpoints that want them."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from support.shop import Shop

from controlplane.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookNotice
from controlplane.webhooks.outbox import notify


def endpoint(session: Session, tenant_id: uuid.UUID, **terms: object) -> uuid.UUID:
    made = WebhookEndpoint(
        **{"tenant_id": tenant_id, "url": "https://example.com", "kinds": [], **terms},
        sealed_secret=b"",
    )
    session.add(made)
    session.flush()
    return made.id


def told(sessions: sessionmaker[Session]) -> list[uuid.UUID]:
    with sessions.begin() as session:
        return list(session.scalars(select(WebhookDelivery.endpoint_id)))


def test_a_notice_goes_to_every_endpoint_of_its_tenant_that_wants_its_kind(shop: Shop) -> None:
    tenant_id = shop.customer().tenant_id
    with shop.sessions.begin() as session:
        wanting = {
            endpoint(session, tenant_id),
            endpoint(session, tenant_id, kinds=["funds.low", "funds.empty"]),
        }
        endpoint(session, tenant_id, kinds=["invoice.finalized"])
        endpoint(session, tenant_id, enabled=False)
        endpoint(session, shop.customer().tenant_id)
        notify(session, tenant_id=tenant_id, kind="funds.low", body={"hours": 24}, once="a")
    assert set(told(shop.sessions)) == wanting


def test_the_same_notice_again_is_one(shop: Shop) -> None:
    tenant_id = shop.customer().tenant_id
    with shop.sessions.begin() as session:
        endpoint(session, tenant_id)
    for _ in range(3):
        with shop.sessions.begin() as session:
            notify(session, tenant_id=tenant_id, kind="funds.low", body={}, once="a")
    assert len(told(shop.sessions)) == 1


def test_a_notice_without_endpoints_is_spent_all_the_same(shop: Shop) -> None:
    tenant_id = shop.customer().tenant_id
    with shop.sessions.begin() as session:
        notify(session, tenant_id=tenant_id, kind="funds.low", body={}, once="a")
        endpoint(session, tenant_id)
        notify(session, tenant_id=tenant_id, kind="funds.low", body={}, once="a")
    assert told(shop.sessions) == []


def test_a_notice_lives_and_dies_with_its_transaction(shop: Shop) -> None:
    tenant_id = shop.customer().tenant_id
    with shop.sessions() as session:
        notify(session, tenant_id=tenant_id, kind="funds.low", body={}, once="a")
        session.rollback()
    with shop.sessions.begin() as session:
        assert session.scalars(select(WebhookNotice)).all() == []
