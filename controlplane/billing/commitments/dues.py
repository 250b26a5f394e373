"""Reckons commitments and collects what is due. Called by `jobs`.

A period falls due once: its row, and how far the commitment has been reckoned, commit together.
What the account does not cover stays due and is collected as money comes in; each collection is a
ledger transaction of its own, which commits with the new figure of its row. The tenant's budgets
count what is collected, as they count GPU time.
"""

import uuid
from collections import Counter
from datetime import datetime

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from controlplane.accounts import budgets, funds, ledger
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.billing.commitments import reckoning
from controlplane.deployments.commitments import Commitment, CommitmentDue
from controlplane.money import MAX_ENTRY_P, p_to_usd

# What counts as spend: what was charged for usage, whatever of it was given back later.
_SPEND = ("charge", "gpu_time", "storage")


def fall_due(session: Session, now: datetime, limit: int = 100) -> int:
    """Reckon one more period of at most `limit` commitments; return how many there were."""
    settled = now - reckoning.GRACE
    # Only those with a period that is over: others must not stand in their way.
    is_over = case(
        (Commitment.kind == "spend", Commitment.due_until < reckoning.month_of(settled)),
        else_=or_(Commitment.due_until < reckoning.day_of(settled), Commitment.ends_at <= settled),
    )
    found = session.scalars(
        select(Commitment)
        .where(
            is_over, or_(Commitment.ends_at.is_(None), Commitment.due_until < Commitment.ends_at)
        )
        .order_by(Commitment.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for commitment in found:
        _reckon(session, commitment)
    session.flush()
    return len(found)


def collect(session: Session, limit: int = 100) -> int:
    """Collect at most `limit` dues, as far as their accounts cover them; return how many."""
    unpaid = session.scalars(
        select(CommitmentDue)
        .join(Account, Account.tenant_id == CommitmentDue.tenant_id)
        .where(
            CommitmentDue.paid_p < CommitmentDue.due_p,
            Account.balance_p + Account.credit_limit_p > Account.held_p,
        )
        .order_by(CommitmentDue.period_start, CommitmentDue.commitment_id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=CommitmentDue)
    ).all()
    if not unpaid:
        return 0
    accounts = funds.lock(session, tenant_ids={it.tenant_id for it in unpaid}, platform=["revenue"])
    left_p = {tenant_id: account.available_p for tenant_id, account in accounts.by_tenant.items()}
    postings = []
    collected_p: Counter[uuid.UUID] = Counter()
    for due in unpaid:
        amount_p = min(due.due_p - due.paid_p, left_p[due.tenant_id], MAX_ENTRY_P)
        if amount_p <= 0:
            continue
        left_p[due.tenant_id] -= amount_p
        due.paid_p += amount_p
        collected_p[due.tenant_id] += amount_p
        account, revenue = accounts.by_tenant[due.tenant_id], accounts.by_kind["revenue"]
        entries = [Entry(account, -amount_p), Entry(revenue, amount_p)]
        postings.append(Posting("commitment", due.tenant_id, entries, _words(due), "metering"))
    ledger.post(session, postings)
    for tenant_id, amount_p in sorted(collected_p.items()):
        budgets.spend(session, tenant_id=tenant_id, amount_p=amount_p)
    session.flush()
    return len(postings)


def _reckon(session: Session, commitment: Commitment) -> None:
    """Move a locked commitment on by a period that is over."""
    start = commitment.due_until
    by_month = commitment.kind == "spend"
    end = reckoning.month_after(start) if by_month else reckoning.day_after(start)
    if commitment.ends_at is not None:
        end = min(end, commitment.ends_at)
    due = _of_spend(session, commitment, end) if by_month else _of_reserved(commitment, end)
    commitment.due_until = end
    commitment.due_p += due.due_p
    if due.due_p:
        session.add(due)


def _of_spend(session: Session, commitment: Commitment, end: datetime) -> CommitmentDue:
    assert commitment.p_per_month is not None
    start, tenant_id = commitment.due_until, commitment.tenant_id
    used_p = session.scalar(
        select(func.coalesce(-func.sum(LedgerEntry.amount_p), 0))
        .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
        .join(Account, Account.id == LedgerEntry.account_id)
        .where(
            LedgerTransaction.tenant_id == tenant_id,
            Account.tenant_id == tenant_id,
            LedgerTransaction.kind.in_(_SPEND),
            LedgerTransaction.created_at >= start,
            LedgerTransaction.created_at < end,
        )
    )
    used = int(used_p or 0)
    promised_p = commitment.p_per_month
    return _due(commitment, end, promised_p, used, reckoning.shortfall_p(promised_p, used))


def _of_reserved(commitment: Commitment, end: datetime) -> CommitmentDue:
    assert commitment.rate_p_per_hour is not None
    assert commitment.replicas is not None
    rate_p, replicas = commitment.rate_p_per_hour, commitment.replicas
    before_p, after_p = (
        reckoning.reserved_p(rate_p, replicas, at - commitment.starts_at)
        for at in (commitment.due_until, end)
    )
    due_p = reckoning.unused_p(after_p, used_p=commitment.used_p, due_p=commitment.due_p)
    promised_p = after_p - before_p
    return _due(commitment, end, promised_p, promised_p - due_p, due_p)


def _due(
    commitment: Commitment, end: datetime, promised_p: int, used_p: int, due_p: int
) -> CommitmentDue:
    return CommitmentDue(
        commitment_id=commitment.id,
        period_start=commitment.due_until,
        period_end=end,
        tenant_id=commitment.tenant_id,
        promised_p=promised_p,
        used_p=used_p,
        due_p=due_p,
        paid_p=0,
    )


def _words(due: CommitmentDue) -> str:
    return (
        f"{due.period_start:%Y-%m-%d} to {due.period_end:%Y-%m-%d}:"
        f" {p_to_usd(due.promised_p)} USD promised, {p_to_usd(due.used_p)} USD used"
    )
