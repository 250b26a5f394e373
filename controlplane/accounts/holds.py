"""Holds: money set aside before a request is dispatched. Called by the gateway's admission.

A hold covers the most a request can cost, so what is spent never exceeds what was there. Requests
are taken in micro-batches: one transaction and a constant number of statements for any number.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Integer,
    Row,
    String,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session

from controlplane.accounts import budgets, epochs, funds
from controlplane.accounts.bounds import HoldPlan, plan
from controlplane.accounts.funds import Funds
from controlplane.accounts.limits import Limit
from controlplane.accounts.models import Hold, LedgerTransaction
from controlplane.arrays import ArrayOf
from controlplane.db import copy_in
from controlplane.errors import (
    AuthenticationFailed,
    BudgetExceeded,
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
        ApiKey.id == any_(bindparam("key_ids", type_=ArrayOf(Uuid))),
        ApiKey.revoked_at.is_(None),
        Tenant.status == "active",
    )
)
_REQUESTS = any_(bindparam("request_ids", type_=ArrayOf(Uuid)))
_EARLIER = select(
    Hold.request_id, Hold.tenant_id, Hold.api_key_id, Hold.amount_p, Hold.state
).where(Hold.request_id == _REQUESTS)
_CHARGED = select(LedgerTransaction.request_id).where(LedgerTransaction.request_id == _REQUESTS)
_RELEASE = (
    update(Hold)
    .where(Hold.request_id == _REQUESTS, Hold.state == "open")
    .values(state="released", closed_at=func.now())
    .returning(Hold.tenant_id, Hold.api_key_id, Hold.amount_p)
    .execution_options(synchronize_session=False)
)
_COLUMNS = (
    "request_id",
    "tenant_id",
    "api_key_id",
    "account_id",
    "epoch_id",
    "price_version_id",
    "band",
    "amount_p",
    "prompt_tokens",
    "completion_tokens",
    "state",
)
_AGAIN_TYPES = {
    "request_id": Uuid,
    "price_version_id": Uuid,
    "band": String,
    "amount_p": BigInteger,
    "prompt_tokens": Integer,
    "completion_tokens": Integer,
}
_AGAIN_VALUES = (
    func.unnest(*(bindparam(f"{name}s", type_=ArrayOf(it)) for name, it in _AGAIN_TYPES.items()))
    .table_valued(*(column(name, it) for name, it in _AGAIN_TYPES.items()))
    .render_derived()
)
_AGAIN = (
    update(Hold)
    .where(Hold.request_id == _AGAIN_VALUES.c.request_id)
    .values({name: _AGAIN_VALUES.c[name] for name in _AGAIN_TYPES if name != "request_id"})
    .execution_options(synchronize_session=False)
)

_Earlier = Row[uuid.UUID, uuid.UUID, uuid.UUID, int, str]


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
    batch whose answer was lost, is safe. Refusals are InsufficientBalance (or its BudgetExceeded),
    AuthenticationFailed (key revoked or tenant suspended meanwhile) and Conflict (the request has
    ended).

    Raises:
        EpochClosed: this gateway's life is over; nothing was held.
    """
    request_ids = [request.request_id for request in requests]
    assert len(set(request_ids)) == len(request_ids), "a request twice in one batch"
    epochs.keep_open(session, {request.epoch_id for request in requests})
    accounts = funds.lock(session, tenant_ids={request.tenant_id for request in requests})
    live_keys = _live_keys(session, requests)
    limits = budgets.of_keys(session, {request.api_key_id for request in requests})
    of_requests = {"request_ids": request_ids}
    earlier = {hold.request_id: hold for hold in session.execute(_EARLIER, of_requests)}
    charged = set(session.scalars(_CHARGED, of_requests))
    outcomes: list[HoldPlan | ControlPlaneError] = []
    placed: list[tuple[HoldRequest, HoldPlan]] = []
    for request in requests:
        if (request.tenant_id, request.api_key_id) not in live_keys:
            outcomes.append(AuthenticationFailed("The API key is not valid."))
            continue
        if request.request_id in charged:
            outcomes.append(_ended())
            continue
        account = accounts.by_tenant[request.tenant_id]
        of_key = limits.of(request.api_key_id)
        outcome = _decide(request, account, of_key, earlier.get(request.request_id))
        outcomes.append(outcome)
        if isinstance(outcome, HoldPlan):
            placed.append((request, outcome))
    if placed:
        new = [each for each in placed if each[0].request_id not in earlier]
        _insert(session, new, accounts.by_tenant)
        if len(new) < len(placed):
            _update(session, [each for each in placed if each[0].request_id in earlier])
        funds.write(session, accounts.by_tenant.values())
        budgets.write(session, limits.by_id.values())
    return outcomes


def release(session: Session, request_ids: Collection[uuid.UUID]) -> int:
    """Give open holds back without a bill; return how many there were."""
    of_requests = {"request_ids": list(request_ids)}
    tenant_ids = {hold.tenant_id for hold in session.execute(_EARLIER, of_requests)}
    accounts = funds.lock(session, tenant_ids=tenant_ids)
    released = session.execute(_RELEASE, of_requests).all()
    if released:
        limits = budgets.of_keys(session, {api_key_id for _, api_key_id, _ in released})
        for tenant_id, api_key_id, amount_p in released:
            accounts.by_tenant[tenant_id].held_p -= amount_p
            limits.hold(api_key_id, -amount_p)
        funds.write(session, accounts.by_tenant.values())
        budgets.write(session, limits.by_id.values())
    return len(released)


def _live_keys(
    session: Session, requests: Sequence[HoldRequest]
) -> set[tuple[uuid.UUID, uuid.UUID]]:
    key_ids = {request.api_key_id for request in requests}
    rows = session.execute(_LIVE_KEYS, {"key_ids": list(key_ids)})
    return {(tenant_id, key_id) for tenant_id, key_id in rows}


def _decide(
    request: HoldRequest, account: Funds, limits: Sequence[Limit], earlier: _Earlier | None
) -> HoldPlan | ControlPlaneError:
    """Decide on one request and move its money within the locked `account` and its budgets."""
    if earlier is not None and (
        earlier.state != "open"
        or (earlier.tenant_id, earlier.api_key_id) != (request.tenant_id, request.api_key_id)
    ):
        return _ended()
    returned_p = earlier.amount_p if earlier is not None else 0
    available_p = account.available_p
    tightest = min(limits, key=lambda limit: limit.available_p, default=None)
    if tightest is not None:
        available_p = min(available_p, tightest.available_p)
    outcome = plan(
        request.price,
        available_p=available_p + returned_p,
        prompt_tokens=request.prompt_tokens,
        max_tokens=request.max_tokens,
        shrinkable=request.shrinkable,
        exact_prompt=request.exact_prompt,
    )
    if outcome is None:
        return _refusal(request, account, tightest, returned_p)
    account.held_p += outcome.amount_p - returned_p
    for limit in limits:
        limit.held_p += outcome.amount_p - returned_p
    return outcome


def _ended() -> Conflict:
    return Conflict("The request has ended already.")


def _refusal(
    request: HoldRequest, account: Funds, tightest: Limit | None, returned_p: int
) -> InsufficientBalance:
    needed_p = bound_p(
        request.price,
        prompt_tokens=request.prompt_tokens if request.exact_prompt else 1,
        completion_tokens=1 if request.shrinkable else request.max_tokens,
    )
    needs = f"this request needs at least {p_to_usd(needed_p)} USD set aside"
    if tightest is None or account.available_p < tightest.available_p:
        available_p = account.available_p + returned_p
        return InsufficientBalance(
            f"Insufficient balance: {needs} and the account has {p_to_usd(available_p)} USD"
            " available. Top the account up, or ask for a smaller max_tokens."
        )
    left_p = max(0, tightest.available_p + returned_p)
    renews_at = tightest.renews_at
    renewal = f"It renews at {renews_at:%Y-%m-%dT%H:%M:%SZ}. " if renews_at else ""
    return BudgetExceeded(
        f"Budget exceeded: {needs} and {tightest.words} has {p_to_usd(left_p)} USD left of"
        f" {p_to_usd(tightest.limit_p)} USD. {renewal}Raise the budget, or ask for a smaller"
        " max_tokens."
    )


def _insert(
    session: Session,
    placed: Sequence[tuple[HoldRequest, HoldPlan]],
    accounts: Mapping[uuid.UUID, Funds],
) -> None:
    copy_in(
        session,
        Hold.__tablename__,
        _COLUMNS,
        (
            (
                request.request_id,
                request.tenant_id,
                request.api_key_id,
                accounts[request.tenant_id].account_id,
                request.epoch_id,
                request.price.version_id,
                request.price.band,
                held.amount_p,
                held.prompt_tokens,
                held.completion_tokens,
                "open",
            )
            for request, held in placed
        ),
    )


def _update(session: Session, placed: Sequence[tuple[HoldRequest, HoldPlan]]) -> None:
    columns = zip(
        *(
            (
                request.request_id,
                request.price.version_id,
                request.price.band,
                held.amount_p,
                held.prompt_tokens,
                held.completion_tokens,
            )
            for request, held in placed
        ),
        strict=True,
    )
    session.execute(
        _AGAIN,
        {f"{name}s": list(values) for name, values in zip(_AGAIN_TYPES, columns, strict=True)},
    )
