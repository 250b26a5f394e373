"""Payments of what was billed. Called by invoices when one is marked paid."""

import uuid

from sqlalchemy.orm import Session

from controlplane.accounts import funds, ledger
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.models import LedgerTransaction
from controlplane.errors import NotFound, UnprocessableRequest
from controlplane.money import MAX_ENTRY_P, p_to_usd


def pay(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    amount_p: int,
    tax_p: int,
    reason: str,
    author: str,
) -> LedgerTransaction:
    """Book money that came in: `tax_p` of it for the state, the rest on the tenant's account.

    Args:
        amount_p: all that was paid, in p$, tax and all.
        tax_p: the part of `amount_p` that is tax.

    Raises:
        UnprocessableRequest: the amount is not positive or beyond one entry, or the tax is not
            part of it; no reason, no author.
        NotFound: no such tenant.
    """
    if not 0 < amount_p <= MAX_ENTRY_P:
        raise UnprocessableRequest(
            f"A payment must be above zero and at most {p_to_usd(MAX_ENTRY_P)} USD.",
            param="amount_usd",
        )
    if not 0 <= tax_p <= amount_p:
        raise UnprocessableRequest("The tax must be a part of the payment.", param="tax_usd")
    if not reason.strip() or not author.strip():
        raise UnprocessableRequest("A payment needs a reason and an author.", param="reason")
    accounts = funds.lock(session, tenant_ids=[tenant_id], platform=["funding", "tax"])
    if tenant_id not in accounts.by_tenant:
        raise NotFound(f"There is no tenant {tenant_id}.")
    moves = (
        (accounts.by_kind["funding"], -amount_p),
        (accounts.by_tenant[tenant_id], amount_p - tax_p),
        (accounts.by_kind["tax"], tax_p),
    )
    entries = [Entry(account, moved_p) for account, moved_p in moves if moved_p]
    posting = Posting("payment", tenant_id, entries, reason, author)
    ledger.post(session, [posting])
    return session.get_one(LedgerTransaction, posting.id)
