"""Admin routes of money that people move: grants, refunds, credit notes, waivers, adjustments, and
the terms of credit. Each answers with the transaction that it posted and the money after it."""

import uuid

from fastapi import APIRouter
from sqlalchemy.orm import Session

from controlplane.accounts import corrections, ledger, terms
from controlplane.accounts.corrections import BackKind
from controlplane.accounts.models import LedgerTransaction
from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db
from controlplane.api.money.correction_schemas import (
    CorrectionOut,
    CreditTerms,
    NewAdjustment,
    NewCorrection,
    NewCreditNote,
    NewGrant,
)
from controlplane.api.money.statements import BalanceOut
from controlplane.money import usd_to_p

router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}", tags=["corrections"], route_class=Contract
)


@router.post("/grants", status_code=201)
def grant(tenant_id: uuid.UUID, body: NewGrant, session: Db, admin: Admin) -> CorrectionOut:
    """Give a tenant money. It is spent before what the tenant paid, and told apart from it."""
    posted = corrections.grant(
        session,
        tenant_id=tenant_id,
        amount_p=usd_to_p(body.amount_usd),
        reason=body.reason,
        author=admin.name,
    )
    return _told(session, posted)


@router.post("/refunds", status_code=201)
def refund(tenant_id: uuid.UUID, body: NewCorrection, session: Db, admin: Admin) -> CorrectionOut:
    """Return what a transaction took wrongly, or a part of it; never more than it took.

    What was paid comes back as paid and what was given as given, in the proportion they were spent.
    """
    return _give_back(session, "refund", tenant_id, body, admin.name)


@router.post("/credit-notes", status_code=201)
def credit_note(
    tenant_id: uuid.UUID, body: NewCreditNote, session: Db, admin: Admin
) -> CorrectionOut:
    """Credit a tenant for a transaction, never more than it took, or as a gesture."""
    return _give_back(session, "credit_note", tenant_id, body, admin.name)


@router.post("/waivers", status_code=201)
def waive(tenant_id: uuid.UUID, body: NewCorrection, session: Db, admin: Admin) -> CorrectionOut:
    """Let a tenant off what a transaction took rightly, or a part of it; never more than that."""
    return _give_back(session, "waiver", tenant_id, body, admin.name)


@router.post("/adjustments", status_code=201)
def adjust(tenant_id: uuid.UUID, body: NewAdjustment, session: Db, admin: Admin) -> CorrectionOut:
    """Put a balance right, up or down. A deduction of more than may be spent is a 402."""
    posted = corrections.adjust(
        session,
        tenant_id=tenant_id,
        amount_p=usd_to_p(body.amount_usd),
        reason=body.reason,
        author=admin.name,
    )
    return _told(session, posted)


@router.put("/credit-terms")
def set_credit_terms(
    tenant_id: uuid.UUID, body: CreditTerms, session: Db, admin: Admin
) -> BalanceOut:
    """Let a tenant pay afterwards up to a limit, or before again.

    A limit below the credit in use is a 409 that tells the figures.
    """
    balance = terms.set_terms(
        session,
        tenant_id=tenant_id,
        terms=body.terms,
        credit_limit_p=usd_to_p(body.credit_limit_usd),
    )
    return BalanceOut.of(balance)


def _give_back(
    session: Session,
    kind: BackKind,
    tenant_id: uuid.UUID,
    body: NewCorrection | NewCreditNote,
    author: str,
) -> CorrectionOut:
    posted = corrections.give_back(
        session,
        kind=kind,
        tenant_id=tenant_id,
        amount_p=None if body.amount_usd is None else usd_to_p(body.amount_usd),
        corrects_id=body.transaction_id,
        reason=body.reason,
        author=author,
    )
    return _told(session, posted)


def _told(session: Session, posted: LedgerTransaction) -> CorrectionOut:
    moved_p = ledger.moved_p(session, tenant_id=posted.tenant_id, transaction_id=posted.id)
    balance = ledger.balance(session, tenant_id=posted.tenant_id)
    return CorrectionOut.of(posted, moved_p, balance)
