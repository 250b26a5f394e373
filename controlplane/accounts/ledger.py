"""The ledger: double entry, append-only. Called by top-ups, settlement and the listings of the API.

Every transaction's entries sum to zero and the database refuses to change or delete them. Adding
entries is what moves balances, inside the database. What a tenant was given is spent before what it
paid.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from controlplane.accounts import funds
from controlplane.accounts.funds import Funds
from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.db import copy_in, uuid7
from controlplane.errors import Conflict, NotFound, UnprocessableRequest
from controlplane.money import MAX_ENTRY_P, p_to_usd, rate_p_to_usd_per_million
from controlplane.pricing.rating import ChargeLine
from controlplane.tenants import tenants

_CLASS_WORDS = {
    "hit": "cache-hit input tokens",
    "miss": "cache-miss input tokens",
    "output": "output tokens",
}

_TRANSACTION_COLUMNS = (
    "id",
    "kind",
    "tenant_id",
    "request_id",
    "idempotency_key",
    "interval_id",
    "from_ms",
    "to_ms",
    "rate_p_per_hour",
    "corrects_id",
    "reason",
    "author",
)
_ENTRY_COLUMNS = (
    "transaction_id",
    "account_id",
    "amount_p",
    "granted_p",
    "token_class",
    "tokens",
    "rate_p",
)


class Entry(msgspec.Struct, frozen=True):
    """A movement to post on a locked account.

    Attributes:
        amount_p: positive credits the account.
        line: the tokens that it pays for.
        granted_p: of a credit, the part that is given; of a debit `post` decides.
    """

    account: Funds
    amount_p: int
    line: ChargeLine | None = None
    granted_p: int = 0


@dataclass(frozen=True, slots=True)
class GpuTick:
    """The part of a replica's proven life that a transaction pays for, ms since its beginning."""

    interval_id: uuid.UUID
    from_ms: int
    to_ms: int
    rate_p_per_hour: int


class Posting(msgspec.Struct, frozen=True):
    """A transaction to post. Its entries sum to zero."""

    kind: str
    tenant_id: uuid.UUID
    entries: Sequence[Entry]
    reason: str
    author: str
    request_id: uuid.UUID | None = None
    idempotency_key: str | None = None
    tick: GpuTick | None = None
    corrects_id: uuid.UUID | None = None
    id: uuid.UUID = msgspec.field(default_factory=uuid7)


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's money: what is there, how much of it was given, what is set aside, what may be
    spent."""

    balance_p: int
    granted_p: int
    held_p: int
    terms: str
    credit_limit_p: int

    @property
    def available_p(self) -> int:
        return self.balance_p + self.credit_limit_p - self.held_p


# What a `Balance` is made of: a row of these makes one.
BALANCE_COLUMNS = (
    Account.balance_p,
    Account.granted_p,
    Account.held_p,
    Account.terms,
    Account.credit_limit_p,
)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry with what explains it."""

    id: int
    transaction_id: uuid.UUID
    account: str
    tenant_id: uuid.UUID
    kind: str
    amount_p: int
    token_class: str | None
    tokens: int | None
    rate_p: int | None
    request_id: uuid.UUID | None
    interval_id: uuid.UUID | None
    from_ms: int | None
    to_ms: int | None
    rate_p_per_hour: int | None
    reason: str
    author: str
    created_at: datetime

    @property
    def explanation(self) -> str:
        """The entry in words."""
        if self.from_ms is not None and self.to_ms is not None and self.rate_p_per_hour is not None:
            return (
                f"{Decimal(self.to_ms - self.from_ms) / 1000} s of {self.reason}"
                f" at {p_to_usd(self.rate_p_per_hour)} USD per hour"
                f" = {p_to_usd(abs(self.amount_p))} USD"
            )
        if self.token_class is None or self.tokens is None or self.rate_p is None:
            return f"{self.kind.replace('_', '-')} by {self.author}: {self.reason}"
        if self.token_class == "request":
            return f"{self.tokens} request x {p_to_usd(self.rate_p)} USD"
        return (
            f"{self.tokens} {_CLASS_WORDS[self.token_class]}"
            f" x {rate_p_to_usd_per_million(self.rate_p)} USD per million"
            f" = {p_to_usd(abs(self.amount_p))} USD"
        )


def post(session: Session, postings: Sequence[Posting]) -> None:
    """Append transactions and move the balances of their locked accounts.

    Holds that end with them have been taken off the accounts and written (`funds.write`) before.
    """
    entries = []
    for posting in postings:
        assert sum(entry.amount_p for entry in posting.entries) == 0
        for entry in posting.entries:
            entries.append(_entry_row(posting.id, entry, _granted_p(entry)))
    if not postings:
        return
    rows = map(_transaction_row, postings)
    copy_in(session, LedgerTransaction.__tablename__, _TRANSACTION_COLUMNS, rows)
    # One statement for all: the database sums up what each adds, and refuses what is unequal.
    copy_in(session, LedgerEntry.__tablename__, _ENTRY_COLUMNS, entries)


def top_up(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    amount_p: int,
    reason: str,
    author: str,
    idempotency_key: str | None = None,
) -> LedgerTransaction:
    """Credit a tenant. The same `idempotency_key` again is the same top-up, not another.

    Raises:
        UnprocessableRequest: the amount is not positive, or beyond one ledger entry.
        NotFound: no such tenant.
        Conflict: the key was used for another top-up, or the tenant is deleted.
    """
    if not 0 < amount_p <= MAX_ENTRY_P:
        raise UnprocessableRequest("A top-up must be above zero.", param="amount_usd")
    # The funding account's lock makes top-ups one at a time, so a retry sees the first one.
    accounts = funds.lock(session, tenant_ids=[tenant_id], platform=["funding"])
    account = accounts.by_tenant.get(tenant_id)
    if account is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    earlier = _topped_up(session, idempotency_key, account, amount_p)
    if earlier is not None:
        return earlier
    tenants.living(session, tenant_id=tenant_id)
    posting = Posting(
        kind="top_up",
        tenant_id=tenant_id,
        entries=[Entry(account, amount_p), Entry(accounts.by_kind["funding"], -amount_p)],
        reason=reason,
        author=author,
        idempotency_key=idempotency_key,
    )
    post(session, [posting])
    return session.get_one(LedgerTransaction, posting.id)


def balance_of(row: Row[*tuple[Any, ...]]) -> Balance:
    """Return what a row of `BALANCE_COLUMNS`, and maybe others, says."""
    return Balance(*(getattr(row, column.key) for column in BALANCE_COLUMNS))


def balance(session: Session, *, tenant_id: uuid.UUID) -> Balance:
    """Return a tenant's money.

    Raises:
        NotFound: no such tenant.
    """
    row = session.execute(
        select(*BALANCE_COLUMNS).where(Account.tenant_id == tenant_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    return balance_of(row)


def moved_p(session: Session, *, tenant_id: uuid.UUID, transaction_id: uuid.UUID) -> int:
    """Return what a transaction moved on a tenant's account, in p$; positive credits it."""
    query = (
        select(func.coalesce(func.sum(LedgerEntry.amount_p), 0))
        .join(Account, Account.id == LedgerEntry.account_id)
        .where(LedgerEntry.transaction_id == transaction_id, Account.tenant_id == tenant_id)
    )
    return int(session.execute(query).scalar_one())


def lines(
    session: Session,
    *,
    tenant_id: uuid.UUID | None,
    after: int | None = None,
    limit: int | None = None,
    request_id: uuid.UUID | None = None,
) -> list[LedgerLine]:
    """Return entries, newest first, those older than the id `after`.

    With a `tenant_id`, those on the tenant's account; without, those on every account.
    """
    query = (
        select(
            LedgerEntry.id,
            LedgerEntry.transaction_id,
            Account.kind.label("account"),
            LedgerTransaction.tenant_id,
            LedgerTransaction.kind,
            LedgerEntry.amount_p,
            LedgerEntry.token_class,
            LedgerEntry.tokens,
            LedgerEntry.rate_p,
            LedgerTransaction.request_id,
            LedgerTransaction.interval_id,
            LedgerTransaction.from_ms,
            LedgerTransaction.to_ms,
            LedgerTransaction.rate_p_per_hour,
            LedgerTransaction.reason,
            LedgerTransaction.author,
            LedgerTransaction.created_at,
        )
        .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
        .join(Account, Account.id == LedgerEntry.account_id)
        .order_by(LedgerEntry.id.desc())
        .limit(limit)
    )
    if tenant_id is not None:
        query = query.where(Account.tenant_id == tenant_id)
    if after is not None:
        query = query.where(LedgerEntry.id < after)
    if request_id is not None:
        query = query.where(LedgerTransaction.request_id == request_id)
    return [LedgerLine(**row._mapping) for row in session.execute(query)]


def _topped_up(
    session: Session, idempotency_key: str | None, account: Funds, amount_p: int
) -> LedgerTransaction | None:
    if idempotency_key is None:
        return None
    found = session.execute(
        select(LedgerTransaction, LedgerEntry.account_id, LedgerEntry.amount_p)
        .join(LedgerEntry, LedgerEntry.transaction_id == LedgerTransaction.id)
        .where(LedgerTransaction.idempotency_key == idempotency_key, LedgerEntry.amount_p > 0)
    ).one_or_none()
    if found is None:
        return None
    transaction, account_id, earlier_p = found
    if (account_id, earlier_p) != (account.account_id, amount_p):
        raise Conflict("This Idempotency-Key was used for another top-up.")
    return transaction


def _granted_p(entry: Entry) -> int:
    """Move the balance of the entry's account; return the part that is given money."""
    account, granted_p = entry.account, entry.granted_p
    if entry.amount_p < 0 and account.kind == "tenant":
        granted_p = -min(account.granted_p, -entry.amount_p)
    account.balance_p += entry.amount_p
    account.granted_p += granted_p
    return granted_p


def _transaction_row(posting: Posting) -> tuple[object, ...]:
    tick = posting.tick
    return (
        posting.id,
        posting.kind,
        posting.tenant_id,
        posting.request_id,
        posting.idempotency_key,
        tick.interval_id if tick else None,
        tick.from_ms if tick else None,
        tick.to_ms if tick else None,
        tick.rate_p_per_hour if tick else None,
        posting.corrects_id,
        posting.reason,
        posting.author,
    )


def _entry_row(transaction_id: uuid.UUID, entry: Entry, granted_p: int) -> tuple[object, ...]:
    line = entry.line
    return (
        transaction_id,
        entry.account.account_id,
        entry.amount_p,
        granted_p,
        line.token_class if line else None,
        line.tokens if line else None,
        line.rate_p if line else None,
    )
