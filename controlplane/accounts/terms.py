"""Terms of payment: prepaid, or postpaid up to a credit limit. Called by the admin API."""

import uuid
from typing import Literal

from sqlalchemy import update
from sqlalchemy.orm import Session

from controlplane.accounts import funds, ledger
from controlplane.accounts.ledger import Balance
from controlplane.accounts.models import Account
from controlplane.errors import Conflict, NotFound, UnprocessableRequest
from controlplane.money import MAX_ENTRY_P, p_to_usd

Terms = Literal["prepaid", "postpaid"]


def set_terms(
    session: Session, *, tenant_id: uuid.UUID, terms: Terms, credit_limit_p: int
) -> Balance:
    """Set how a tenant pays and how far below zero its balance may go; return its money.

    Raises:
        UnprocessableRequest: a negative or absurd limit, or one for a prepaid tenant.
        NotFound: no such tenant.
        Conflict: the tenant uses more credit than that now.
    """
    if not 0 <= credit_limit_p <= MAX_ENTRY_P:
        raise UnprocessableRequest(
            f"A credit limit is from zero to {p_to_usd(MAX_ENTRY_P)} USD.",
            param="credit_limit_usd",
        )
    if terms == "prepaid" and credit_limit_p:
        raise UnprocessableRequest(
            "Who pays before has no credit: set the limit to 0, or the terms to postpaid.",
            param="credit_limit_usd",
        )
    account = funds.lock(session, tenant_ids=[tenant_id]).by_tenant.get(tenant_id)
    if account is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    used_p = account.held_p - account.balance_p
    if used_p > credit_limit_p:
        raise Conflict(
            f"The tenant uses {p_to_usd(used_p)} USD of credit (a balance of"
            f" {p_to_usd(account.balance_p)} USD, of which {p_to_usd(account.held_p)} USD are"
            f" held): a limit of {p_to_usd(credit_limit_p)} USD is below that.",
            param="credit_limit_usd",
        )
    session.execute(
        update(Account)
        .where(Account.id == account.account_id)
        .values(terms=terms, credit_limit_p=credit_limit_p)
        .execution_options(synchronize_session=False)
    )
    return ledger.balance(session, tenant_id=tenant_id)
