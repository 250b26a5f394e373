"""What the REST API takes and gives of money that people move: grants, refunds, terms."""

import uuid
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from controlplane.accounts.ledger import Balance
from controlplane.accounts.models import LedgerTransaction
from controlplane.amounts import SignedUsd, Usd
from controlplane.api.money.statements import BalanceOut
from controlplane.api.schemas import Body, Name
from controlplane.money import p_to_usd

Reason = Annotated[Name, Field(description="kept in the ledger for ever, and shown to the tenant")]


class NewGrant(Body):
    """Money given to a tenant; it is spent before what the tenant paid."""

    amount_usd: Usd = Field(examples=["5.00"])
    reason: Reason


class NewCorrection(Body):
    """Takes back a charge, GPU time, storage or commitment, or a part of it."""

    transaction_id: uuid.UUID = Field(description="the transaction to take back; see the ledger")
    amount_usd: Usd | None = Field(
        default=None, examples=["0.25"], description="null: all that is left of it"
    )
    reason: Reason


class NewCreditNote(Body):
    """A credit for a transaction or, without one, a gesture."""

    transaction_id: uuid.UUID | None = Field(
        default=None,
        description="the transaction it is for; null: a gesture, which needs an amount",
    )
    amount_usd: Usd | None = Field(
        default=None, examples=["2.00"], description="null: all that is left of the transaction"
    )
    reason: Reason


class NewAdjustment(Body):
    """Puts a balance right. Below zero it deducts, at most what nothing holds."""

    amount_usd: SignedUsd = Field(examples=["-0.10"])
    reason: Reason


class CreditTerms(Body):
    """How a tenant pays: before, or after up to a limit."""

    terms: Literal["prepaid", "postpaid"]
    credit_limit_usd: Usd = Field(
        default="0", examples=["500.00"], description="how far below zero the balance may go"
    )


class CorrectionOut(BaseModel):
    """What was posted, and the tenant's money after it."""

    transaction_id: uuid.UUID
    tenant_id: uuid.UUID
    kind: str
    corrects_id: uuid.UUID | None
    amount_usd: str
    amount_p: str
    reason: str
    author: str
    created_at: datetime
    balance: BalanceOut

    @classmethod
    def of(cls, posted: LedgerTransaction, amount_p: int, balance: Balance) -> Self:
        """Tell of a transaction that moved `amount_p` on the tenant's account."""
        return cls(
            transaction_id=posted.id,
            tenant_id=posted.tenant_id,
            kind=posted.kind,
            corrects_id=posted.corrects_id,
            amount_usd=p_to_usd(amount_p),
            amount_p=str(amount_p),
            reason=posted.reason,
            author=posted.author,
            created_at=posted.created_at,
            balance=BalanceOut.of(balance),
        )
