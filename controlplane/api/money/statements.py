"""What the REST API tells of money: balances, usage, receipts, the ledger, the books.

Every amount is given twice, as a decimal string in USD and as an exact string of p$.
"""

import uuid
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from controlplane.accounts.ledger import Balance, LedgerLine
from controlplane.api.schemas import Row
from controlplane.billing.receipts import Receipt
from controlplane.deployments.holdings import Held
from controlplane.money import p_to_usd, rate_p_to_usd_per_million
from controlplane.usage.models import UsageEvent


class BalanceOut(BaseModel):
    """A tenant's money: what is there and how much of it was given, what is set aside for running
    requests and for the next minutes of what runs, what may be spent."""

    balance_usd: str
    balance_p: str
    granted_usd: str
    granted_p: str
    held_usd: str
    held_p: str
    terms: str
    credit_limit_usd: str
    available_usd: str
    available_p: str

    @classmethod
    def of(cls, balance: Balance) -> Self:
        return cls(
            balance_usd=p_to_usd(balance.balance_p),
            balance_p=str(balance.balance_p),
            granted_usd=p_to_usd(balance.granted_p),
            granted_p=str(balance.granted_p),
            held_usd=p_to_usd(balance.held_p),
            held_p=str(balance.held_p),
            terms=balance.terms,
            credit_limit_usd=p_to_usd(balance.credit_limit_p),
            available_usd=p_to_usd(balance.available_p),
            available_p=str(balance.available_p),
        )


class HeldOut(BaseModel):
    """What the held money is for: together these are `held_usd`."""

    requests_usd: str = Field(
        description="for running requests: the most they can cost, until they end"
    )
    requests_p: str
    gpu_usd: str = Field(
        description="for the next minutes of replicas and bare GPUs: each minute is charged out of"
        " it, then it is filled up again from what is available; what runs is stopped when it is"
        " down to a minute"
    )
    gpu_p: str
    storage_usd: str = Field(description="for the next hour of volumes")
    storage_p: str

    @classmethod
    def of(cls, held: Held) -> Self:
        return cls(
            requests_usd=p_to_usd(held.requests_p),
            requests_p=str(held.requests_p),
            gpu_usd=p_to_usd(held.gpu_p),
            gpu_p=str(held.gpu_p),
            storage_usd=p_to_usd(held.storage_p),
            storage_p=str(held.storage_p),
        )


class AccountOut(BalanceOut):
    """A tenant's money, and what is held of it for what."""

    held_for: HeldOut

    @classmethod
    def told(cls, balance: Balance, held: Held) -> Self:
        return cls(**BalanceOut.of(balance).model_dump(), held_for=HeldOut.of(held))


class TopUpOut(BaseModel):
    transaction_id: uuid.UUID
    tenant_id: uuid.UUID
    amount_usd: str
    amount_p: str
    reason: str
    author: str
    created_at: datetime
    balance: BalanceOut


class UsageOut(Row):
    """A settled request and its charge."""

    request_id: uuid.UUID
    tenant_id: uuid.UUID
    api_key_id: uuid.UUID
    model: str
    path: str
    replica: str | None
    thinking: bool
    streamed: bool
    hit_tokens: int
    miss_tokens: int
    output_tokens: int
    reasoning_tokens: int
    finish_reason: str
    started_at: datetime
    first_token_at: datetime | None
    finished_at: datetime | None
    settled_at: datetime
    price_version_id: uuid.UUID
    band: str
    charge_usd: str
    charge_p: str

    @classmethod
    def of(cls, event: UsageEvent) -> Self:
        columns = {name: getattr(event, name) for name in cls.model_fields if hasattr(event, name)}
        money = {"charge_usd": p_to_usd(event.charge_p), "charge_p": str(event.charge_p)}
        return cls(**(columns | money))


class LedgerLineOut(BaseModel):
    """One entry: what moved on an account, and why in words."""

    id: int
    transaction_id: uuid.UUID
    account: str
    tenant_id: uuid.UUID
    kind: str
    amount_usd: str
    amount_p: str
    token_class: str | None
    tokens: int | None
    rate_usd_per_million: str | None
    rate_usd_per_request: str | None
    request_id: uuid.UUID | None
    interval_id: uuid.UUID | None
    from_ms: int | None
    to_ms: int | None
    rate_usd_per_hour: str | None
    explanation: str
    created_at: datetime

    @classmethod
    def of(cls, line: LedgerLine) -> Self:
        of_request = line.token_class == "request"
        rate_p, request_rate_p = (None, line.rate_p) if of_request else (line.rate_p, None)
        return cls(
            id=line.id,
            transaction_id=line.transaction_id,
            account=line.account,
            tenant_id=line.tenant_id,
            kind=line.kind,
            amount_usd=p_to_usd(line.amount_p),
            amount_p=str(line.amount_p),
            token_class=line.token_class,
            tokens=line.tokens,
            rate_usd_per_million=None if rate_p is None else rate_p_to_usd_per_million(rate_p),
            rate_usd_per_request=None if request_rate_p is None else p_to_usd(request_rate_p),
            request_id=line.request_id,
            interval_id=line.interval_id,
            from_ms=line.from_ms,
            to_ms=line.to_ms,
            rate_usd_per_hour=None
            if line.rate_p_per_hour is None
            else p_to_usd(line.rate_p_per_hour),
            explanation=line.explanation,
            created_at=line.created_at,
        )


class ReceiptOut(UsageOut):
    """A request's bill: tokens x rates, and the ledger lines that say the same.

    Version and band were pinned when the request came, at `started_at`; what was published since
    does not matter. `request_usd` is paid once when any token was read or produced.
    """

    currency: Literal["USD"] = "USD"
    band_explanation: str
    calendar_id: uuid.UUID | None

    hit_usd_per_million: str
    miss_usd_per_million: str
    output_usd_per_million: str
    request_usd: str
    lines: list[LedgerLineOut]

    @classmethod
    def of_receipt(cls, receipt: Receipt) -> Self:
        price = receipt.price
        return cls(
            **UsageOut.of(receipt.event).model_dump(),
            band_explanation=receipt.band_explanation,
            calendar_id=receipt.calendar.id if receipt.calendar else None,
            hit_usd_per_million=rate_p_to_usd_per_million(price.hit_rate_p),
            miss_usd_per_million=rate_p_to_usd_per_million(price.miss_rate_p),
            output_usd_per_million=rate_p_to_usd_per_million(price.output_rate_p),
            request_usd=p_to_usd(price.request_rate_p),
            lines=[LedgerLineOut.of(line) for line in receipt.lines],
        )


class BooksOut(BaseModel):
    """The check of the books; no violations means that every sum is exact."""

    ok: bool
    violations: list[str]
    entries_sum_p: str
    held_p: str
    open_holds: int
    staged: int
    rejected: int


class LedgerHashOut(BaseModel):
    """What the whole ledger says, in one number."""

    sha256: str = Field(
        description="SHA-256 in hexadecimal; the same in every database that says the same"
    )
    transactions: int


class BalanceInfo(BaseModel):
    currency: Literal["USD"] = "USD"
    total_balance: str
    granted_balance: str
    topped_up_balance: str


class UserBalance(BaseModel):
    """DeepSeek's shape of a balance: what may still be spent."""

    is_available: bool
    balance_infos: list[BalanceInfo]
