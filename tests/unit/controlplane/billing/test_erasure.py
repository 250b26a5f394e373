"""Deleting a tenant: the person is erased, the books stay, nothing comes back."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError
from support.everything import everything
from support.invoicing import run
from support.shop import PEPPER, Customer, Shop, cost_p

from controlplane.billing import erasure
from controlplane.billing.commitments import dues, promises
from controlplane.billing.invoices import lifecycle
from controlplane.billing.invoices.models import BillingProfile
from controlplane.db import uuid7
from controlplane.deployments.commitments import Commitment
from controlplane.deployments.models import Deployment
from controlplane.errors import Conflict, NotFound
from controlplane.tenants import keys, tenants
from controlplane.tenants.models import ApiKey, Membership, Person, Project, Tenant
from controlplane.usage.records import TokenUsage
from controlplane.webhooks import outbox
from controlplane.webhooks.models import WebhookEndpoint

CANARY = "rumpelstiltskin"
USAGE = TokenUsage(10, 20, 5, 2)


def erase(shop: Shop, tenant_id: uuid.UUID, *, waive_balance: bool = True) -> str:
    with shop.sessions.begin() as session:
        tenant = erasure.erase(
            session, tenant_id=tenant_id, author="test", waive_balance=waive_balance
        )
        return tenant.status


def told_all_over(shop: Shop, customer: Customer) -> None:
    """Write the canary wherever a tenant writes what it likes."""
    of_it: dict[str, Any] = {"tenant_id": customer.tenant_id}
    with shop.sessions.begin() as session:
        for table in (Tenant, Project, ApiKey):
            column = Tenant.id if table is Tenant else table.__table__.c.tenant_id
            session.execute(
                update(table).where(column == customer.tenant_id).values(name=f"{CANARY} name")
            )
        person = Person(issuer="i", subject=CANARY, email=f"{CANARY}@x.test", name=CANARY)
        session.add(person)
        session.flush()
        session.add_all(
            [
                Membership(email=f"{CANARY}@x.test", role="owner", person_id=person.id, **of_it),
                Membership(email=f"{CANARY}@y.test", role="viewer", **of_it),
                WebhookEndpoint(
                    url=f"https://{CANARY}.test/", kinds=[], sealed_secret=b"", **of_it
                ),
                BillingProfile(
                    legal_name=CANARY,
                    address=CANARY,
                    tax_id=CANARY,
                    tax_name="VAT",
                    tax_basis_points=0,
                    **of_it,
                ),
                Deployment(
                    namespace="n",
                    name="d",
                    path="dedicated",
                    state="deleted",
                    spec={"env": CANARY},
                    status={"message": CANARY},
                    refusal=CANARY,
                    idempotency_key=CANARY,
                    deleted_at=datetime.now(UTC),
                    **of_it,
                ),
            ]
        )
        session.flush()
        outbox.notify(session, kind="note", body={"project": CANARY}, once="a", **of_it)


def promised(
    shop: Shop, customer: Customer, starts_at: datetime, ends_at: datetime | None
) -> uuid.UUID:
    with shop.sessions.begin() as session:
        made = promises.promise_spend(
            session,
            tenant_id=customer.tenant_id,
            p_per_month=10**12,
            starts_at=starts_at,
            ends_at=ends_at,
            reason="contract",
            author="ann",
        )
        return made.id


@pytest.fixture
def customer(shop: Shop) -> Customer:
    customer = shop.customer(10**12)
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()
    run(shop.sessions, datetime.now(UTC) + timedelta(days=40))
    return customer


def test_nothing_tells_of_the_person_and_the_books_stay(shop: Shop, customer: Customer) -> None:
    told_all_over(shop, customer)
    assert everything(shop).count(CANARY) > 10
    assert erase(shop, customer.tenant_id) == "deleted"
    assert CANARY not in everything(shop)
    assert shop.books().violations == []
    assert shop.balance(customer).available_p == 0
    with shop.sessions.begin() as session:
        charged = text("SELECT sum(charge_p) FROM usage_events WHERE tenant_id = :tenant_id")
        found = session.execute(charged, {"tenant_id": customer.tenant_id}).scalar_one()
    assert found == cost_p(USAGE)


def test_who_belongs_elsewhere_too_stays_known_there(shop: Shop, customer: Customer) -> None:
    told_all_over(shop, customer)
    other = shop.customer()
    with shop.sessions.begin() as session:
        (person,) = session.query(Person)
        session.add(
            Membership(tenant_id=other.tenant_id, email="e", role="viewer", person_id=person.id)
        )
    erase(shop, customer.tenant_id)
    with shop.sessions.begin() as session:
        assert [it.tenant_id for it in session.query(Membership)] == [other.tenant_id]
        assert session.query(Person).count() == 1


def test_its_keys_open_nothing(shop: Shop, customer: Customer) -> None:
    erase(shop, customer.tenant_id)
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, PEPPER, customer.token) is None
        assert all(key.revoked_at for key in keys.listing(session, tenant_id=customer.tenant_id))


def test_it_does_not_come_back(shop: Shop, customer: Customer) -> None:
    erase(shop, customer.tenant_id)
    assert erase(shop, customer.tenant_id) == "deleted"
    with pytest.raises(Conflict):
        shop.top_up(customer, 1)
    with shop.sessions.begin() as session:
        with pytest.raises(Conflict):
            tenants.set_status(session, tenant_id=customer.tenant_id, status="active")
        with pytest.raises(Conflict):
            keys.issue(session, PEPPER, tenant_id=customer.tenant_id, name="again")
    with pytest.raises(IntegrityError), shop.sessions.begin() as session:
        session.execute(text("UPDATE tenants SET status = 'active'"))


def test_money_that_is_left_is_given_up_only_when_told(shop: Shop, customer: Customer) -> None:
    with pytest.raises(Conflict, match="waive_balance"):
        erase(shop, customer.tenant_id, waive_balance=False)
    poor = shop.customer()
    assert erase(shop, poor.tenant_id, waive_balance=False) == "deleted"


def test_it_gets_no_more_months(shop: Shop, customer: Customer) -> None:
    erase(shop, customer.tenant_id)
    with shop.sessions.begin() as session:
        assert lifecycle.begin_months(session, datetime.now(UTC) + timedelta(days=400)) == 0


def test_its_commitments_end_and_nothing_more_falls_due(shop: Shop, customer: Customer) -> None:
    forever = promised(shop, customer, datetime(2040, 1, 1, tzinfo=UTC), None)
    erase(shop, customer.tenant_id)
    with shop.sessions.begin() as session:
        assert dues.fall_due(session, datetime(2050, 1, 1, tzinfo=UTC)) == 0
        ended = session.get_one(Commitment, forever)
        assert ended.ends_at == ended.due_until


def test_what_is_due_of_a_commitment_is_given_up_only_when_told(shop: Shop) -> None:
    poor = shop.customer()
    january = datetime(2040, 1, 1, tzinfo=UTC)
    promised(shop, poor, january, datetime(2040, 2, 1, tzinfo=UTC))
    with shop.sessions.begin() as session:
        assert dues.fall_due(session, january + timedelta(days=40)) == 1
    with pytest.raises(Conflict, match="commitments"):
        erase(shop, poor.tenant_id, waive_balance=False)
    assert erase(shop, poor.tenant_id) == "deleted"
    assert shop.books().violations == []


@pytest.mark.parametrize("busy", ["deployment", "hold", "staged", "uninvoiced"])
def test_it_is_refused_while_something_goes_on(shop: Shop, customer: Customer, busy: str) -> None:
    if busy == "deployment":
        with shop.sessions.begin() as session:
            session.add(
                Deployment(
                    tenant_id=customer.tenant_id, namespace="n", name="d", path="bare", spec={}
                )
            )
    else:
        request_id = shop.hold(customer)
        if busy != "hold":
            shop.stage(shop.trace(customer, request_id, USAGE))
        if busy == "uninvoiced":
            shop.settle()
    with pytest.raises(Conflict):
        erase(shop, customer.tenant_id)
    assert shop.books().violations == []


def test_an_unknown_tenant_is_not_found(shop: Shop) -> None:
    with pytest.raises(NotFound):
        erase(shop, uuid7())
