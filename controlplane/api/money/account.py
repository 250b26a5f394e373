"""A tenant's own routes: money, usage and receipts. The key says whose; no id is taken."""

import uuid
from datetime import UTC, datetime

from fastapi import APIRouter

from controlplane.accounts import ledger
from controlplane.api.contract.route import Contract
from controlplane.api.deps import AfterId, AfterNumber, Db, Limit, Tenant, page
from controlplane.api.money.statements import (
    AccountOut,
    BalanceInfo,
    LedgerLineOut,
    ReceiptOut,
    UsageOut,
    UserBalance,
)
from controlplane.api.prices.price_schemas import CurrentPrice
from controlplane.api.prices.prices import current_price
from controlplane.api.schemas import Page
from controlplane.billing.receipts import receipt
from controlplane.deployments import holdings
from controlplane.money import p_to_usd
from controlplane.pricing import book
from controlplane.pricing.drafts import SERVERLESS
from controlplane.usage import events

router = APIRouter(tags=["account"], route_class=Contract)


@router.get("/user/balance")
@router.get("/v1/user/balance", include_in_schema=False)
def get_user_balance(session: Db, tenant: Tenant) -> UserBalance:
    """Show what may still be spent, in DeepSeek's shape."""
    balance = ledger.balance(session, tenant_id=tenant.tenant_id)
    available_p = balance.available_p
    granted_p = min(balance.granted_p, available_p)
    info = BalanceInfo(
        total_balance=p_to_usd(available_p),
        granted_balance=p_to_usd(granted_p),
        topped_up_balance=p_to_usd(available_p - granted_p),
    )
    return UserBalance(is_available=available_p > 0, balance_infos=[info])


@router.get("/v1/account")
def get_account(session: Db, tenant: Tenant) -> AccountOut:
    """Show the account's money, and what is held of it for what."""
    return AccountOut.told(*holdings.balance(session, tenant_id=tenant.tenant_id))


@router.get("/v1/account/prices")
def list_current_prices(session: Db, tenant: Tenant) -> Page[CurrentPrice]:
    """Show what each model costs this account now, why, and when that changes."""
    now = datetime.now(UTC)
    found = book.current_for(session, tenant.tenant_id)
    prices = [
        current_price(found, model, SERVERLESS, now, tenant.tenant_id)
        for model in found.models(SERVERLESS, now)
    ]
    return Page(data=prices, next=None)


@router.get("/v1/account/usage")
def list_usage(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 100
) -> Page[UsageOut]:
    """List settled requests, newest first."""
    found = events.listing(session, tenant_id=tenant.tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=UsageOut.of, cursor=lambda event: event.request_id)


@router.get("/v1/account/usage/{request_id}")
def get_receipt(request_id: uuid.UUID, session: Db, tenant: Tenant) -> ReceiptOut:
    """Show a request's receipt; it is there a second or two after the answer."""
    return ReceiptOut.of_receipt(
        receipt(session, tenant_id=tenant.tenant_id, request_id=request_id)
    )


@router.get("/v1/account/ledger")
def list_ledger(
    session: Db, tenant: Tenant, after: AfterNumber = None, limit: Limit = 100
) -> Page[LedgerLineOut]:
    """List the account's ledger entries, newest first."""
    found = ledger.lines(session, tenant_id=tenant.tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=LedgerLineOut.of, cursor=lambda line: line.id)
