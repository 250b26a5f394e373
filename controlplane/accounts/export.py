"""The ledger as text for other programs. Called by the admin API, which streams it.

Beancount's format is for accountants: their own tool loads it, balances every transaction and
checks each account's balance that stands at the end. CSV is for spreadsheets, an entry a line.
Amounts are USD with 12 decimals, so nothing is rounded.

We write a credit above zero, on every account. Beancount writes it below: what customers have with
us is our liability, what they paid our asset.
"""

import csv
import io
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.money import P_PER_USD
from controlplane.tenants.models import Tenant

Format = Literal["beancount", "csv"]

_ROWS_AT_ONCE = 1000
_NAMES = {
    "revenue": "Income:Revenue",
    "funding": "Assets:Funding",
    "promotion": "Expenses:Promotion",
    "adjustments": "Equity:Adjustments",
    "tax": "Liabilities:Tax",
}
_COLUMNS = (
    *("created_at", "transaction_id", "kind", "account", "tenant_id", "amount_usd", "granted_usd"),
    *("token_class", "tokens", "rate_p", "request_id", "corrects_id", "reason", "author"),
)
_Entry = Row[*tuple[Any, ...]]


def export(session: Session, *, form: Format, tenant_id: uuid.UUID | None) -> Iterator[str]:
    """Yield the ledger, transactions in the order they were made, in pieces of whole lines.

    Args:
        session: on a transaction of its own that sees one snapshot, so that balances agree.
        tenant_id: only this tenant's transactions; None is all.
    """
    return _beancount(session, tenant_id) if form == "beancount" else _csv(session, tenant_id)


def _entries(session: Session, tenant_id: uuid.UUID | None) -> Iterator[_Entry]:
    query = (
        select(
            LedgerTransaction.created_at,
            LedgerEntry.transaction_id,
            LedgerTransaction.kind,
            Account.kind.label("account"),
            LedgerTransaction.tenant_id,
            Account.tenant_id.label("owner_id"),
            LedgerEntry.amount_p,
            LedgerEntry.granted_p,
            LedgerEntry.token_class,
            LedgerEntry.tokens,
            LedgerEntry.rate_p,
            LedgerTransaction.request_id,
            LedgerTransaction.corrects_id,
            LedgerTransaction.reason,
            LedgerTransaction.author,
        )
        .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
        .join(Account, Account.id == LedgerEntry.account_id)
        # Ids of transactions are ordered by time; concurrent ones mix those of entries.
        .order_by(LedgerTransaction.id, LedgerEntry.id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    if tenant_id is not None:
        query = query.where(LedgerTransaction.tenant_id == tenant_id)
    # Closed even when the reader goes away half-way.
    with session.execute(query) as found:
        yield from found


def _csv(session: Session, tenant_id: uuid.UUID | None) -> Iterator[str]:
    yield ",".join(_COLUMNS) + "\r\n"
    for row in _entries(session, tenant_id):
        told = dict(row._mapping) | {
            "created_at": row.created_at.isoformat(),
            "amount_usd": _usd(row.amount_p),
            "granted_usd": _usd(row.granted_p),
        }
        line = io.StringIO()
        csv.writer(line).writerow([told[name] for name in _COLUMNS])
        yield line.getvalue()


def _beancount(session: Session, tenant_id: uuid.UUID | None) -> Iterator[str]:
    yield 'option "title" "Flashplane"\noption "operating_currency" "USD"\n\n'
    yield "1970-01-01 commodity USD\n"
    for owner_id, kind, name in _accounts(session):
        if tenant_id is None or owner_id in (None, tenant_id):
            yield f"1970-01-01 open {_account(kind, owner_id)} USD\n"
            if name is not None:
                yield f"  name: {_quoted(name)}\n"
    last = datetime(1970, 1, 1, tzinfo=UTC)
    for _, entries in groupby(_entries(session, tenant_id), lambda row: row.transaction_id):
        rows = list(entries)
        last = max(last, rows[0].created_at)
        yield _transaction(rows)
    yield from _balances(session, tenant_id, last)


def _transaction(rows: list[_Entry]) -> str:
    first = rows[0]
    lines = [
        f"\n{first.created_at:%Y-%m-%d} * {_quoted(first.kind)} {_quoted(first.reason)}",
        f'  id: "{first.transaction_id}"',
        f"  author: {_quoted(first.author)}",
    ]
    for name in ("request_id", "corrects_id"):
        if getattr(first, name) is not None:
            lines.append(f'  {name}: "{getattr(first, name)}"')
    for row in rows:
        lines.append(f"  {_account(row.account, row.owner_id)}  {_usd(-row.amount_p)} USD")
        if row.token_class is not None:
            lines.append(f'    tokens: "{row.tokens} {row.token_class} x {row.rate_p} p$"')
        if row.granted_p:
            lines.append(f"    granted: {_usd(-row.granted_p)} USD")
    return "\n".join(lines) + "\n"


def _balances(session: Session, tenant_id: uuid.UUID | None, last: datetime) -> Iterator[str]:
    """Say what each account has, for the reader's tool to check; of one tenant, only its own."""
    day = f"{last.astimezone(UTC) + timedelta(days=1):%Y-%m-%d}"
    query = select(Account.kind, Account.tenant_id, Account.balance_p).order_by(Account.id)
    if tenant_id is not None:
        query = query.where(Account.tenant_id == tenant_id)
    yield "\n"
    for kind, owner_id, balance_p in session.execute(query):
        # A tolerance of nothing: the last decimal counts.
        yield f"{day} balance {_account(kind, owner_id)}  {_usd(-balance_p)} ~ {_usd(0)} USD\n"


def _accounts(session: Session) -> Iterable[tuple[uuid.UUID | None, str, str | None]]:
    query = (
        select(Account.tenant_id, Account.kind, func.max(Tenant.name))
        .outerjoin(Tenant, Tenant.id == Account.tenant_id)
        .group_by(Account.id)
        .order_by(Account.id)
    )
    return ((owner_id, kind, name) for owner_id, kind, name in session.execute(query))


def _account(kind: str, owner_id: uuid.UUID | None) -> str:
    # A part of a name begins with a capital letter or a digit.
    return _NAMES[kind] if owner_id is None else f"Liabilities:Tenants:T-{owner_id}"


def _usd(amount_p: int) -> str:
    whole, fraction = divmod(abs(amount_p), P_PER_USD)
    return f"{'-' if amount_p < 0 else ''}{whole}.{fraction:012d}"


def _quoted(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + " ".join(escaped.splitlines()) + '"'
