"""The exported ledger, read by programs that are not ours."""

import csv
import io
import re
from decimal import Decimal
from pathlib import Path

import pytest
from beancount import loader
from beancount.core import realization
from beancount.core.data import Transaction
from sqlalchemy import select
from starlette.testclient import TestClient
from support.shop import Customer, Shop

from controlplane.accounts import corrections, payments, terms
from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)
REASON = 'a "quoted" \\ reason'


@pytest.fixture
def sold(shop: Shop) -> Customer:
    """A customer with a transaction of nearly every kind."""
    shop.customer(7)
    customer = shop.customer(10**12)
    told = {"tenant_id": customer.tenant_id, "reason": REASON, "author": "root"}
    with shop.sessions.begin() as session:
        terms.set_terms(
            session, tenant_id=customer.tenant_id, terms="postpaid", credit_limit_p=10**12
        )
        corrections.grant(session, amount_p=1_000_001, **told)
        payments.pay(session, amount_p=119, tax_p=19, **told)
        corrections.adjust(session, amount_p=-3, **told)
        corrections.adjust(session, amount_p=-(10**12), **told)
    for _ in range(3):
        shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
    shop.settle()
    charges = select(LedgerTransaction.id).where(LedgerTransaction.kind == "charge")
    with shop.sessions.begin() as session:
        corrections.give_back(
            session,
            kind="refund",
            amount_p=5,
            corrects_id=session.scalars(charges).first(),
            **told,
        )
    return customer


def exported(admin: TestClient, **query: str) -> str:
    answer = admin.get("/admin/v1/ledger/export", params=query)
    assert answer.status_code == 200
    return answer.text


def test_beancount_loads_it_without_an_error_and_has_our_balances(
    admin: TestClient, shop: Shop, sold: Customer, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.beancount"
    file.write_text(exported(admin))
    entries, errors, _ = loader.load_file(str(file))
    assert errors == []
    with shop.sessions.begin() as session:
        ours = {
            account.id: (account.kind, account.tenant_id, account.balance_p)
            for account in session.scalars(select(Account))
        }
        count = len(session.scalars(select(LedgerTransaction.id)).all())
    root = realization.realize(entries)
    theirs = {
        account.account: -sum(position.units.number for position in account.balance)
        for account in realization.iter_children(root, leaf_only=True)
    }
    for kind, tenant_id, balance_p in ours.values():
        name = next(
            name
            for name in theirs
            if (name.endswith(f"T-{tenant_id}") if tenant_id else name.endswith(kind.capitalize()))
        )
        assert theirs[name] * 10**12 == balance_p
    transactions = [entry for entry in entries if isinstance(entry, Transaction)]
    assert len(transactions) == count
    assert REASON in {entry.narration for entry in transactions}


def test_beancount_finds_a_picodollar_that_is_missing(
    admin: TestClient, sold: Customer, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.beancount"
    file.write_text(exported(admin).replace("-0.000000000100 USD", "-0.000000000101 USD", 1))
    _, errors, _ = loader.load_file(str(file))
    assert errors


def test_one_tenants_export_stands_alone(admin: TestClient, sold: Customer, tmp_path: Path) -> None:
    file = tmp_path / "ledger.beancount"
    file.write_text(exported(admin, tenant_id=str(sold.tenant_id)))
    entries, errors, _ = loader.load_file(str(file))
    assert errors == []
    assert {
        posting.account
        for entry in entries
        if isinstance(entry, Transaction)
        for posting in entry.postings
        if "Tenants" in posting.account
    } == {f"Liabilities:Tenants:T-{sold.tenant_id}"}


def test_the_csv_has_every_entry(admin: TestClient, shop: Shop, sold: Customer) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(admin, format="csv"))))
    with shop.sessions.begin() as session:
        amounts_p = session.scalars(select(LedgerEntry.amount_p)).all()
    assert sorted(int(Decimal(row["amount_usd"]) * 10**12) for row in rows) == sorted(amounts_p)
    assert sum(Decimal(row["amount_usd"]) for row in rows) == 0
    assert {row["reason"] for row in rows} >= {REASON}


def test_what_cannot_be_exported_is_refused(admin: TestClient) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    path = "/admin/v1/ledger/export"
    assert admin.get(path, params={"format": "xml"}).status_code == 422
    assert admin.get(path, params={"tenant_id": nobody}).status_code == 404


def test_the_ledgers_hash_tells_all_transactions(
    admin: TestClient, shop: Shop, sold: Customer
) -> None:
    first = admin.get("/admin/v1/ledger/hash").json()
    assert re.fullmatch("[0-9a-f]{64}", first["sha256"])
    assert admin.get("/admin/v1/ledger/hash").json() == first
    shop.top_up(sold, 1)
    second = admin.get("/admin/v1/ledger/hash").json()
    assert second["transactions"] == first["transactions"] + 1
    assert second["sha256"] != first["sha256"]
