"""Money moved by people: grants, what is given back, adjustments. Called by the admin API.

Nothing in the ledger is ever changed: each of these is a transaction of its own with a reason and
an author. What is given back of a charge is never more than it took; the rest of it is decided with
the account locked, so two admins who refund the same charge at once do not refund it twice.
"""

import uuid
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.accounts import funds, ledger
from controlplane.accounts.funds import LockedFunds
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.errors import Conflict, InsufficientBalance, NotFound, UnprocessableRequest
from controlplane.money import MAX_ENTRY_P, p_to_usd
from controlplane.tenants import tenants

# A refund returns what was taken wrongly, a waiver what is not insisted on; both name the charge. A
# credit note may, or is a gesture.
BackKind = Literal["refund", "credit_note", "waiver"]
CORRECTABLE: Final = ("charge", "gpu_time", "storage", "commitment")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a transaction took off a tenant's account, and what of it has been given back, in p$."""

    amount_p: int
    granted_p: int
    back_p: int

    @property
    def left_p(self) -> int:
        """What may still be given back."""
        return self.amount_p - self.back_p


def granted_back_p(taken: Taken, amount_p: int) -> int:
    """Return the given part of the next `amount_p` that come back.

    Given money comes back in the proportion in which it was taken: of the first x that come back,
    floor(granted x / amount) are given. A step is the difference of two of these, so any schedule
    of partial refunds returns exactly the given money that was taken. Pure.
    """
    assert 0 < amount_p <= taken.left_p
    before_p = taken.granted_p * taken.back_p // taken.amount_p
    return taken.granted_p * (taken.back_p + amount_p) // taken.amount_p - before_p


def grant(
    session: Session, *, tenant_id: uuid.UUID, amount_p: int, reason: str, author: str
) -> LedgerTransaction:
    """Give a tenant money, which is spent before what it paid.

    Raises:
        UnprocessableRequest: the amount is not positive or beyond one entry; no reason, no author.
        NotFound: no such tenant.
    """
    _check(amount_p, reason, author)
    accounts = _lock(session, tenant_id, "promotion")
    entries = [
        Entry(accounts.by_tenant[tenant_id], amount_p, granted_p=amount_p),
        Entry(accounts.by_kind["promotion"], -amount_p),
    ]
    return _post(session, Posting("grant", tenant_id, entries, reason, author))


def give_back(
    session: Session,
    *,
    kind: BackKind,
    tenant_id: uuid.UUID,
    amount_p: int | None,
    reason: str,
    author: str,
    corrects_id: uuid.UUID | None = None,
) -> LedgerTransaction:
    """Return revenue to a tenant: of the transaction `corrects_id`, or as a gesture.

    Args:
        amount_p: in p$; None is all that is left of the transaction.
        corrects_id: a charge, GPU time, storage or commitment of the same tenant; only a credit
            note may do without.

    Raises:
        UnprocessableRequest: an amount that is not positive or beyond one entry, no reason, no
            author, no transaction where one is needed, or one that took nothing.
        NotFound: no such tenant, or no such transaction of this tenant.
        Conflict: less than that is left of the transaction.
    """
    _check(amount_p, reason, author)
    accounts = _lock(session, tenant_id, "revenue")
    account = accounts.by_tenant[tenant_id]
    granted_p = 0
    if corrects_id is not None:
        taken = taken_by(session, tenant_id=tenant_id, transaction_id=corrects_id)
        amount_p = _of_what_is_left(taken, amount_p)
        granted_p = granted_back_p(taken, amount_p)
    elif kind != "credit_note" or amount_p is None:
        missing = "amount_usd" if kind == "credit_note" else "transaction_id"
        raise UnprocessableRequest(
            f"A {kind.replace('_', ' ')} needs the transaction that it takes back"
            + (", or an amount." if kind == "credit_note" else "."),
            param=missing,
        )
    entries = [
        Entry(account, amount_p, granted_p=granted_p),
        Entry(accounts.by_kind["revenue"], -amount_p),
    ]
    posting = Posting(kind, tenant_id, entries, reason, author, corrects_id=corrects_id)
    return _post(session, posting)


def adjust(
    session: Session, *, tenant_id: uuid.UUID, amount_p: int, reason: str, author: str
) -> LedgerTransaction:
    """Put a balance right, up or down, against the platform's adjustments.

    Raises:
        UnprocessableRequest: the amount is zero or beyond one entry; no reason, no author.
        NotFound: no such tenant.
        InsufficientBalance: a deduction of more than the tenant may spend.
    """
    _check(abs(amount_p), reason, author)
    accounts = _lock(session, tenant_id, "adjustments")
    account = accounts.by_tenant[tenant_id]
    if account.available_p + amount_p < 0:
        raise InsufficientBalance(
            f"The account has {p_to_usd(account.available_p)} USD that nothing holds: no more than"
            " that can be deducted."
        )
    entries = [Entry(account, amount_p), Entry(accounts.by_kind["adjustments"], -amount_p)]
    return _post(session, Posting("adjustment", tenant_id, entries, reason, author))


def taken_by(session: Session, *, tenant_id: uuid.UUID, transaction_id: uuid.UUID) -> Taken:
    """Return what a transaction took off a tenant's account and what of it came back.

    The answer lasts as long as the account is locked.

    Raises:
        NotFound: no such transaction of this tenant.
        UnprocessableRequest: it is none that takes money, such as a refund.
    """
    found = session.get(LedgerTransaction, transaction_id)
    if found is None or found.tenant_id != tenant_id:
        raise NotFound(f"The tenant has no transaction {transaction_id}.")
    if found.kind not in CORRECTABLE:
        raise UnprocessableRequest(
            f"The transaction is a {found.kind.replace('_', ' ')}: only"
            f" {', '.join(CORRECTABLE).replace('_', ' ')} can be given back.",
            param="transaction_id",
        )
    account_id = select(Account.id).where(Account.tenant_id == tenant_id).scalar_subquery()
    on_tenants = LedgerEntry.account_id == account_id
    amount_p, granted_p = session.execute(
        select(
            func.coalesce(-func.sum(LedgerEntry.amount_p), 0),
            func.coalesce(-func.sum(LedgerEntry.granted_p), 0),
        ).where(LedgerEntry.transaction_id == transaction_id, on_tenants)
    ).one()
    back_p = session.execute(
        select(func.coalesce(func.sum(LedgerEntry.amount_p), 0))
        .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
        .where(LedgerTransaction.corrects_id == transaction_id, on_tenants)
    ).scalar_one()
    return Taken(int(amount_p), int(granted_p), int(back_p))


def _of_what_is_left(taken: Taken, amount_p: int | None) -> int:
    wanted_p = taken.left_p if amount_p is None else amount_p
    if wanted_p > taken.left_p or wanted_p == 0:
        raise Conflict(
            f"The transaction took {p_to_usd(taken.amount_p)} USD and"
            f" {p_to_usd(taken.back_p)} USD of it came back:"
            f" {p_to_usd(taken.left_p)} USD can be given back.",
            param="amount_usd",
        )
    return wanted_p


def _check(amount_p: int | None, reason: str, author: str) -> None:
    if amount_p is not None and not 0 < amount_p <= MAX_ENTRY_P:
        raise UnprocessableRequest(
            f"An amount must be above zero and at most {p_to_usd(MAX_ENTRY_P)} USD.",
            param="amount_usd",
        )
    if not reason.strip():
        raise UnprocessableRequest("Money moved by hand needs a reason.", param="reason")
    if not author.strip():
        raise UnprocessableRequest("Money moved by hand needs an author.", param="author")


def _lock(session: Session, tenant_id: uuid.UUID, platform: str) -> LockedFunds:
    accounts = funds.lock(session, tenant_ids=[tenant_id], platform=[platform])
    if tenant_id not in accounts.by_tenant:
        raise NotFound(f"There is no tenant {tenant_id}.")
    tenants.living(session, tenant_id=tenant_id)
    return accounts


def _post(session: Session, posting: Posting) -> LedgerTransaction:
    ledger.post(session, [posting])
    return session.get_one(LedgerTransaction, posting.id)
