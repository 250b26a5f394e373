"""Whether invoices have told what was used. Called by `jobs` and `billing.erasure`.

Usage of a month that is settled late is told by the next month's invoice, so a month is told when
that one is final too.
"""

import uuid
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.accounts.models import Account, LedgerEntry, LedgerTransaction
from controlplane.billing.invoices import lifecycle, months
from controlplane.billing.invoices.models import Invoice
from controlplane.usage.models import UsageRollup

# What no invoice needs to tell before a tenant may go: money that came in, and what set it right.
_NO_SALES = ("top_up", "grant", "payment", "adjustment")


def covers(session: Session, since: datetime, until: datetime) -> bool:
    """Return whether all that any tenant used from `since` until before `until` is on final
    invoices."""
    last = months.month_of(until)
    unfinished = select(Invoice).where(Invoice.state != "final", Invoice.month <= last)
    invoiced = (
        select(func.max(Invoice.month))
        .where(Invoice.tenant_id == UsageRollup.tenant_id)
        .scalar_subquery()
    )
    missing = select(UsageRollup).where(
        UsageRollup.width_seconds == 3600,
        UsageRollup.start >= since,
        UsageRollup.start < until,
        UsageRollup.charge_p > 0,
        func.coalesce(invoiced < last, True),
    )
    return not session.scalar(select(unfinished.exists() | missing.exists()))


def owes_invoice(session: Session, *, tenant_id: uuid.UUID) -> bool:
    """Return whether a tenant was charged for anything that is on no final invoice."""
    seen = lifecycle.seen_by(lifecycle.last_final(session, tenant_id=tenant_id))
    sale = (
        select(LedgerEntry)
        .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
        .join(Account, Account.id == LedgerEntry.account_id)
        .where(
            Account.tenant_id == tenant_id,
            LedgerEntry.id >= min(seen.left_from_id, seen.until_id + 1),
            LedgerTransaction.kind.not_in(_NO_SALES),
        )
    )
    return bool(session.scalar(select(sale.exists())))
