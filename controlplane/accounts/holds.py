"""Holds: money set aside before a request is dispatched. Called by the gateway's admission.

A hold covers the most a request can cost, so what is spent never exceeds what was there. Requests
are taken in micro-batches: one transaction and a constant number of statements for any number.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.accounts import epochs, funds
from controlplane.accounts.bounds import HoldPlan, plan
from controlplane.accounts.funds import Funds
from controlplane.accounts.models import Hold
from controlplane.errors import (
    AuthenticationFailed,
    Conflict,
    ControlPlaneError,
    InsufficientBalance,
)
from controlplane.money import p_to_usd
from controlplane.pricing.rating import Price, bound_p
from controlplane.tenants.models import ApiKey, Tenant

# Built once: these run for every batch, and building costs more than running.
_LIVE_KEYS = (
    select(ApiKey.tenant_id, ApiKey.id)
    .join(Tenant, Tenant.id == ApiKey.tenant_id)
    .where(
        ApiKey.id.in_(bindparam("key_ids", expanding=True)),
        ApiKey.revoked_at.is_(None),
        Tenant.status == "active",
    )
)
_EARLIER = select(Hold.request_id, Hold.tenant_id, Hold.amount_p, Hold.state).where(
    Hold.request_id.in_(bindparam("request_ids", expanding=True))
)
_INSERT = insert(Hold)
_UPSERT = _INSERT.on_conflict_do_update(
    index_elements=[Hold.request_id],
    set_={
        "price_version_id": _INSERT.excluded.price_version_id,
        "band": _INSERT.excluded.band,
        "amount_p": _INSERT.excluded.amount_p,
        "prompt_tokens": _INSERT.excluded.prompt_tokens,
        "completion_tokens": _INSERT.excluded.completion_tokens,
    },
)


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """One request that wants money set aside; see `bounds.plan` for the last five."""

    request_id: uuid.UUID
    tenant_id: uuid.UUID
    api_key_id: uuid.UUID
    epoch_id: uuid.UUID
    price: Price
    prompt_tokens: int
    max_tokens: int
    shrinkable: bool
    exact_prompt: bool = False


def place(session: Session, requests: Sequence[HoldRequest]) -> list[HoldPlan | ControlPlaneError]:
    """Place holds, first come first served; return each request's plan or its refusal.

    A request that has an open hold already gives it back first, so holding again, or repeating a
    batch whose answer was lost, is safe. Refusals are InsufficientBalance, AuthenticationFailed
    (key revoked or tenant suspended meanwhile) and Conflict (the request has ended).

    Raises:
        EpochClosed: this gateway's life is over; nothing was held.
    """
    request_ids = [request.request_id for request in requests]
    assert len(set(request_ids)) == len(request_ids), "a request twice in one batch"
    epochs.keep_open(session, {request.epoch_id for request in requests})
    accounts = funds.lock(session, tenant_ids={request.tenant_id for request in requests})
    live_keys = _live_keys(session, requests)
    earlier = {
        hold.request_id: hold for hold in session.execute(_EARLIER, {"request_ids": request_ids})
    }
    outcomes: list[HoldPlan | ControlPlaneError] = []
    rows: list[dict[str, object]] = []
    for request in requests:
        if (request.tenant_id, request.api_key_id) not in live_keys:
            outcomes.append(AuthenticationFailed("The API key is not valid."))
            continue
        account = accounts.by_tenant[request.tenant_id]
        outcome = _decide(request, account, earlier.get(request.request_id))
        outcomes.append(outcome)
        if isinstance(outcome, HoldPlan):
            rows.append(_row(request, account, outcome))
    if rows:
        session.execute(_UPSERT, rows)
        funds.write(session, accounts.by_tenant.values())
    return outcomes


def release(session: Session, request_ids: Collection[uuid.UUID]) -> int:
    """Give open holds back without a bill; return how many there were."""
    tenant_ids = set(
        session.scalars(select(Hold.tenant_id).where(Hold.request_id.in_(request_ids)))
    )
    accounts = funds.lock(session, tenant_ids=tenant_ids)
    released = session.execute(
        update(Hold)
        .where(Hold.request_id.in_(request_ids), Hold.state == "open")
        .values(state="released", closed_at=func.now())
        .returning(Hold.tenant_id, Hold.amount_p)
        .execution_options(synchronize_session=False)
    ).all()
    for tenant_id, amount_p in released:
        accounts.by_tenant[tenant_id].held_p -= amount_p
    if released:
        funds.write(session, accounts.by_tenant.values())
    return len(released)


def _live_keys(
    session: Session, requests: Sequence[HoldRequest]
) -> set[tuple[uuid.UUID, uuid.UUID]]:
    key_ids = {request.api_key_id for request in requests}
    rows = session.execute(_LIVE_KEYS, {"key_ids": list(key_ids)})
    return {(tenant_id, key_id) for tenant_id, key_id in rows}


def _decide(
    request: HoldRequest,
    account: Funds,
    earlier: Row[uuid.UUID, uuid.UUID, int, str] | None,
) -> HoldPlan | ControlPlaneError:
    """Decide on one request and move its money within the locked `account`."""
    if earlier is not None and (earlier.state != "open" or earlier.tenant_id != request.tenant_id):
        return Conflict("The request has ended already.")
    returned_p = earlier.amount_p if earlier is not None else 0
    available_p = account.available_p + returned_p
    outcome = plan(
        request.price,
        available_p=available_p,
        prompt_tokens=request.prompt_tokens,
        max_tokens=request.max_tokens,
        shrinkable=request.shrinkable,
        exact_prompt=request.exact_prompt,
    )
    if outcome is None:
        return _refusal(request, available_p)
    account.held_p += outcome.amount_p - returned_p
    return outcome


def _refusal(request: HoldRequest, available_p: int) -> InsufficientBalance:
    needed_p = bound_p(
        request.price,
        prompt_tokens=request.prompt_tokens if request.exact_prompt else 1,
        completion_tokens=1 if request.shrinkable else request.max_tokens,
    )
    return InsufficientBalance(
        f"Insufficient balance: this request needs at least {p_to_usd(needed_p)} USD set aside"
        f" and the account has {p_to_usd(available_p)} USD available."
        " Top the account up, or ask for a smaller max_tokens."
    )


def _row(request: HoldRequest, account: Funds, outcome: HoldPlan) -> dict[str, object]:
    return {
        "request_id": request.request_id,
        "tenant_id": request.tenant_id,
        "api_key_id": request.api_key_id,
        "account_id": account.account_id,
        "epoch_id": request.epoch_id,
        "price_version_id": request.price.version_id,
        "band": request.price.band,
        "amount_p": outcome.amount_p,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "state": "open",
    }
