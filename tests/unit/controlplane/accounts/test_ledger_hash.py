"""The ledger's hash: the same for the same meaning, another for any other."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker
from support.shop import Customer, Shop

from controlplane.accounts import corrections, funds, ledger
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.ledger_hash import LedgerHash, ledger_hash
from controlplane.pricing.rating import ChargeLine

REQUESTS = [uuid.UUID(int=number) for number in (1, 2, 3)]


def hashed(sessions: sessionmaker[Session]) -> LedgerHash:
    with sessions.begin() as session:
        return ledger_hash(session)


def charge(shop: Shop, customer: Customer, *request_ids: uuid.UUID, tokens: int = 100) -> None:
    """Charge requests in one transaction, in this order."""
    with shop.sessions.begin() as session:
        accounts = funds.lock(session, tenant_ids=[customer.tenant_id], platform=["revenue"])
        account, revenue = accounts.by_tenant[customer.tenant_id], accounts.by_kind["revenue"]
        line = ChargeLine("miss", tokens, 140_000, tokens * 140_000)
        entries = [Entry(account, -line.amount_p, line), Entry(revenue, line.amount_p)]
        ledger.post(
            session,
            [
                Posting("charge", customer.tenant_id, entries, "a request", "test", request_id=it)
                for it in request_ids
            ],
        )


def give(shop: Shop, customer: Customer, amount_p: int) -> None:
    with shop.sessions.begin() as session:
        corrections.grant(
            session,
            tenant_id=customer.tenant_id,
            amount_p=amount_p,
            reason="welcome",
            author="test",
        )


def rolled_back(shop: Shop, work: Callable[[Shop], None]) -> LedgerHash:
    """Return the hash after some work that is undone again."""
    engine = shop.sessions.kw["bind"]
    with engine.connect() as connection, connection.begin() as everything:
        inner = object.__new__(Shop)
        inner.sessions = sessionmaker(connection, join_transaction_mode="create_savepoint")
        work(inner)
        found = hashed(inner.sessions)
        everything.rollback()
    return found


def test_the_order_of_requests_does_not_count_even_where_given_money_ends(shop: Shop) -> None:
    customer = shop.customer(10**12)
    give(shop, customer, 20_000_000)  # one and a half requests
    one = rolled_back(shop, lambda it: charge(it, customer, *REQUESTS))

    def backwards(it: Shop) -> None:
        for request_id in reversed(REQUESTS):
            charge(it, customer, request_id)

    assert rolled_back(shop, backwards) == one
    assert one.transactions == 5


@pytest.mark.parametrize(
    "other",
    [
        lambda it, customer: charge(it, customer, REQUESTS[0], tokens=101),
        lambda it, customer: charge(it, customer, REQUESTS[1]),
        lambda it, customer: charge(it, customer, *REQUESTS[:2]),
        lambda it, customer: it.top_up(customer, 1),
        lambda it, customer: None,
    ],
    ids=["more tokens", "another request", "one more request", "a top-up", "nothing"],
)
def test_whatever_else_is_said_is_another_hash(
    shop: Shop, other: Callable[[Shop, Customer], None]
) -> None:
    customer = shop.customer(10**12)
    one = rolled_back(shop, lambda it: charge(it, customer, REQUESTS[0]))
    assert rolled_back(shop, lambda it: other(it, customer)).sha256 != one.sha256


def test_given_money_is_not_paid_money(shop: Shop) -> None:
    customer = shop.customer(10**12)
    with_grant = rolled_back(shop, lambda it: give(it, customer, 100))
    assert rolled_back(shop, lambda it: it.top_up(customer, 100)) != with_grant


def test_a_refund_is_known_by_what_it_takes_back(shop: Shop) -> None:
    customer = shop.customer(10**12)
    charge(shop, customer, *REQUESTS)

    def back(of: uuid.UUID) -> Callable[[Shop], None]:
        def work(it: Shop) -> None:
            with it.sessions.begin() as session:
                (line, *_) = ledger.lines(
                    session, tenant_id=customer.tenant_id, request_id=of, limit=1
                )
                corrections.give_back(
                    session,
                    tenant_id=customer.tenant_id,
                    kind="refund",
                    corrects_id=line.transaction_id,
                    amount_p=None,
                    reason="sorry",
                    author="test",
                )

        return work

    one, again, two = (rolled_back(shop, back(it)) for it in (REQUESTS[0], *REQUESTS[:2]))
    assert one == again
    assert one != two


def test_an_empty_ledger_has_a_hash(shop: Shop) -> None:
    assert hashed(shop.sessions).transactions == 0
    assert len(hashed(shop.sessions).sha256) == 64
