"""Usage that settlement has set aside: every way out leaves exact books."""

import uuid

import pytest
from sqlalchemy import select, update
from support.shop import Customer, Shop, cost_p

from controlplane.audit.models import AuditEvent
from controlplane.billing import rejected
from controlplane.errors import NotFound
from controlplane.usage.models import StagedUsage
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)
BALANCE_P = 10**12


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(BALANCE_P)


@pytest.fixture
def poisoned(shop: Shop, customer: Customer) -> uuid.UUID:
    """A request whose row says that it is of a tenant that does not exist."""
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, USAGE))
    claim(shop, request_id, uuid.uuid4())
    shop.settle()
    assert not shop.books().ok
    return request_id


def claim(shop: Shop, request_id: uuid.UUID, tenant_id: uuid.UUID) -> None:
    with shop.sessions.begin() as session:
        row = update(StagedUsage).where(StagedUsage.request_id == request_id)
        session.execute(row.values(tenant_id=tenant_id))


def test_it_is_billed_by_a_retry_once_its_cause_is_gone(
    shop: Shop, customer: Customer, poisoned: uuid.UUID
) -> None:
    claim(shop, poisoned, customer.tenant_id)
    with shop.sessions.begin() as session:
        rejected.retry(session, poisoned)
    shop.settle()
    assert shop.balance(customer).balance_p == BALANCE_P - cost_p(USAGE)
    assert shop.books().ok


def test_it_comes_back_from_a_retry_while_its_cause_lasts(shop: Shop, poisoned: uuid.UUID) -> None:
    with shop.sessions.begin() as session:
        rejected.retry(session, poisoned)
    shop.settle()
    with shop.sessions.begin() as session:
        (row,) = rejected.listing(session, after=None, limit=10)
    assert (row.request_id, row.rejected) == (poisoned, "the tenant does not exist")


def test_a_write_off_charges_nobody_and_gives_its_hold_back(
    shop: Shop, customer: Customer, poisoned: uuid.UUID
) -> None:
    with shop.sessions.begin() as session:
        rejected.write_off(session, poisoned, actor="admin_key:1", reason="a test's")
    balance = shop.balance(customer)
    assert (balance.balance_p, balance.held_p) == (BALANCE_P, 0)
    assert shop.books().ok


def test_a_write_off_tells_the_audit_log_what_was_given_up(shop: Shop, poisoned: uuid.UUID) -> None:
    with shop.sessions.begin() as session:
        rejected.write_off(session, poisoned, actor="admin_key:1", reason="a test's")
        event = session.scalars(select(AuditEvent)).one()
    assert (event.action, event.subject) == ("usage_written_off", f"request {poisoned}")
    assert event.details["reason"] == "a test's"
    assert (event.details["hit"], event.details["output"]) == (10, 5)


def test_what_is_not_set_aside_has_no_way_out(shop: Shop, customer: Customer) -> None:
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, USAGE))
    with shop.sessions.begin() as session:
        with pytest.raises(NotFound):
            rejected.retry(session, request_id)
        with pytest.raises(NotFound):
            rejected.write_off(session, request_id, actor="admin_key:1", reason="no")
