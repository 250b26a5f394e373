"""The ledger on a real database: balanced, append-only, idempotent."""

import uuid

import pytest
from sqlalchemy import exc, insert, text
from support.shop import Customer, Shop

from controlplane.accounts import ledger
from controlplane.accounts.models import LedgerEntry, LedgerTransaction
from controlplane.errors import Conflict, NotFound, UnprocessableRequest


def top_up(shop: Shop, customer: Customer, amount_p: int, key: str | None = None) -> uuid.UUID:
    with shop.sessions.begin() as session:
        return ledger.top_up(
            session,
            tenant_id=customer.tenant_id,
            amount_p=amount_p,
            reason="invoice 7",
            author="root",
            idempotency_key=key,
        ).id


def test_a_top_up_credits_the_tenant_and_debits_funding(shop: Shop) -> None:
    customer = shop.customer()
    top_up(shop, customer, 5)
    with shop.sessions.begin() as session:
        lines = ledger.lines(session, tenant_id=None)
    assert {(line.account, line.amount_p) for line in lines} == {("tenant", 5), ("funding", -5)}
    assert shop.balance(customer).balance_p == 5
    assert shop.books().violations == []


def test_a_line_explains_itself(shop: Shop) -> None:
    customer = shop.customer()
    top_up(shop, customer, 5)
    with shop.sessions.begin() as session:
        (line,) = ledger.lines(session, tenant_id=customer.tenant_id)
    assert line.explanation == "top-up by root: invoice 7"


def test_the_same_idempotency_key_credits_once(shop: Shop) -> None:
    customer = shop.customer()
    assert top_up(shop, customer, 5, "k") == top_up(shop, customer, 5, "k")
    assert shop.balance(customer).balance_p == 5


def test_a_reused_idempotency_key_for_another_amount_is_a_conflict(shop: Shop) -> None:
    customer = shop.customer()
    top_up(shop, customer, 5, "k")
    with pytest.raises(Conflict):
        top_up(shop, customer, 6, "k")
    with pytest.raises(Conflict):
        top_up(shop, shop.customer(), 5, "k")


@pytest.mark.parametrize("amount_p", [0, -1, 2**63])
def test_an_amount_that_is_no_credit_is_refused(shop: Shop, amount_p: int) -> None:
    with pytest.raises(UnprocessableRequest):
        top_up(shop, shop.customer(), amount_p)


def test_balances_beyond_bigint_stay_exact(shop: Shop) -> None:
    customer = shop.customer()
    for _ in range(3):
        top_up(shop, customer, 2**63 - 1)
    assert shop.balance(customer).balance_p == 3 * (2**63 - 1)
    assert shop.books().violations == []


def test_no_top_up_for_an_unknown_tenant(shop: Shop) -> None:
    with pytest.raises(NotFound):
        top_up(shop, Customer(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), ""), 5)


@pytest.mark.parametrize("table", ["ledger_entries", "ledger_transactions", "usage_events"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET ctid = ctid", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_database_refuses_to_rewrite_history(shop: Shop, table: str, verb: str) -> None:
    statement = verb.format(table)
    if verb.startswith("UPDATE"):
        column = "request_id" if table == "usage_events" else "id"
        statement = f"UPDATE {table} SET {column} = {column}"
        if table == "ledger_entries":
            statement = "UPDATE ledger_entries SET amount_p = amount_p"
    elif verb.startswith("TRUNCATE"):
        statement += " CASCADE"
    with shop.sessions() as session, pytest.raises(exc.IntegrityError, match="append-only"):
        session.execute(text(statement))


def test_the_database_refuses_an_unbalanced_transaction(shop: Shop) -> None:
    customer = shop.customer(10)
    with shop.sessions() as session:
        entry = ledger.lines(session, tenant_id=customer.tenant_id)[0]
        account_id = session.execute(
            text("SELECT id FROM accounts WHERE tenant_id = :id"), {"id": customer.tenant_id}
        ).scalar_one()
        row = {"transaction_id": entry.transaction_id, "account_id": account_id, "amount_p": 1}
        with pytest.raises(exc.IntegrityError, match="does not sum to zero"):
            session.execute(insert(LedgerEntry), [row])


def test_the_database_refuses_a_balance_without_entries(shop: Shop) -> None:
    customer = shop.customer(10)
    for change in (
        "UPDATE accounts SET balance_p = balance_p + 1 WHERE tenant_id = :id",
        "UPDATE accounts SET granted_p = 1 WHERE tenant_id = :id",
        "DELETE FROM accounts WHERE tenant_id = :id",
    ):
        with (
            shop.sessions() as session,
            pytest.raises(exc.IntegrityError, match=r"only ledger entries|append-only"),
        ):
            session.execute(text(change), {"id": customer.tenant_id})


def test_lines_page_backwards_without_gaps(shop: Shop) -> None:
    customer = shop.customer()
    for amount_p in range(1, 6):
        top_up(shop, customer, amount_p)
    seen: list[int] = []
    after = None
    with shop.sessions.begin() as session:
        while page := ledger.lines(session, tenant_id=customer.tenant_id, after=after, limit=2):
            seen += [line.amount_p for line in page]
            after = page[-1].id
    assert seen == [5, 4, 3, 2, 1]


def test_a_request_is_charged_once_for_ever(shop: Shop) -> None:
    customer = shop.customer(10)
    row = {
        "kind": "charge",
        "tenant_id": customer.tenant_id,
        "request_id": uuid.uuid4(),
        "reason": "r",
        "author": "a",
    }
    with shop.sessions() as session:
        session.execute(insert(LedgerTransaction), [row | {"id": uuid.uuid4()}])
        with pytest.raises(exc.IntegrityError, match="uq_ledger_transactions_request_id"):
            session.execute(insert(LedgerTransaction), [row | {"id": uuid.uuid4()}])
