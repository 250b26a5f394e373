"""Bills requests that a dump does not have, as they were billed before. Called by `restore`.

A request is only charged up to its hold. A dump that is older than the request lacks the hold; the
journal has its figures, so it is made again, as released: its money was set aside in a database
that is gone. What an account cannot pay, because a top-up went with that database, is left alone
and told: nobody goes below zero.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Uuid, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.accounts import funds
from controlplane.accounts.models import GatewayEpoch, Hold, LedgerTransaction
from controlplane.arrays import ArrayOf
from controlplane.billing import settlement
from controlplane.billing.charging import NOTHING, Cover, bill
from controlplane.billing.restoring.journals import Told
from controlplane.db import copy_in
from controlplane.pricing import book
from controlplane.pricing.rating import Price
from controlplane.tenants.models import ApiKey
from controlplane.usage import sink
from controlplane.usage.models import StagedUsage
from controlplane.usage.records import TokenUsage

_REQUESTS = any_(bindparam("request_ids", type_=ArrayOf(Uuid)))
_CHARGED = select(LedgerTransaction.request_id).where(LedgerTransaction.request_id == _REQUESTS)
_HELD = select(Hold.request_id).where(Hold.request_id == _REQUESTS)
_KEYS = select(ApiKey.tenant_id, ApiKey.id).where(
    ApiKey.id == any_(bindparam("key_ids", type_=ArrayOf(Uuid)))
)
_REJECTED = select(StagedUsage.request_id, StagedUsage.rejected).where(
    StagedUsage.request_id == _REQUESTS, StagedUsage.rejected.is_not(None)
)
_HOLD_COLUMNS = (
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
    "closed_at",
)
# Lives that began after the dump was made; whose they were the journal does not tell.
_GATEWAY = "restored"
# More than in service: nobody waits for these accounts.
_SETTLED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class SetAside:
    """A request that is not billed, and why. The tenant is None where only an engine knows it."""

    request_id: uuid.UUID
    tenant_id: uuid.UUID | None
    usage: TokenUsage
    reason: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of some requests."""

    billed: int
    already_there: int
    set_aside: Sequence[SetAside]


def known(session: Session, request_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return those requests whose usage or charge the database has."""
    charged = session.scalars(_CHARGED, {"request_ids": list(request_ids)})
    return sink.known(session, request_ids) | {it for it in charged if it is not None}


def settle_all(session: Session) -> None:
    """Settle everything that is staged, in this transaction."""
    sink.by_index(session)
    while settlement.settle(session, _SETTLED_AT_ONCE):
        pass


def replay(session: Session, batch: Sequence[Told]) -> Replayed:
    """Bill what is not billed yet, in this transaction."""
    sink.by_index(session)
    request_ids = [it.trace.opened.request_id for it in batch]
    of_requests = {"request_ids": request_ids}
    desk = _Desk(session, batch)
    there = known(session, request_ids)
    held = set(session.scalars(_HELD, of_requests))
    fresh, holds, aside, already_there = [], [], [], 0
    for told in batch:
        opened = told.trace.opened
        if opened.request_id in there:
            already_there += 1
            continue
        there.add(opened.request_id)  # a copy of a journal tells it again
        reason = desk.refuses(told, is_held=opened.request_id in held)
        if reason is not None:
            aside.append(SetAside(opened.request_id, opened.tenant_id, told.trace.usage, reason))
            continue
        fresh.append(told.trace)
        if opened.request_id not in held and opened.amount_p is not None:
            holds.append(told)
    _hold_again(session, holds, desk)
    sink.stage(session, fresh)
    settle_all(session)
    reasons = {row.request_id: row.rejected for row in session.execute(_REJECTED, of_requests)}
    for trace in fresh:
        opened = trace.opened
        if reason := reasons.get(opened.request_id):
            aside.append(SetAside(opened.request_id, opened.tenant_id, trace.usage, reason))
    settled = sum(trace.opened.request_id not in reasons for trace in fresh)
    return Replayed(settled, already_there, aside)


class _Desk:
    """The locked accounts of a batch, and what it has spent of them so far."""

    def __init__(self, session: Session, batch: Sequence[Told]) -> None:
        opened = [it.trace.opened for it in batch]
        self.accounts = funds.lock(
            session, tenant_ids={it.tenant_id for it in opened}, platform=["revenue"]
        ).by_tenant
        keys = session.execute(_KEYS, {"key_ids": [it.api_key_id for it in opened]})
        self._keys = {(tenant_id, key_id) for tenant_id, key_id in keys}
        self._prices: dict[tuple[uuid.UUID, str], Price] = book.pinned(
            session, {(it.price_version_id, it.band) for it in opened}
        )
        self._spent_p: Counter[uuid.UUID] = Counter()

    def refuses(self, told: Told, *, is_held: bool) -> str | None:
        """Return why a request cannot be billed; None when it can, and then count it as spent."""
        opened, usage = told.trace.opened, told.trace.usage
        account = self.accounts.get(opened.tenant_id)
        if account is None or (opened.tenant_id, opened.api_key_id) not in self._keys:
            return "the database does not know its key"
        price = self._prices.get((opened.price_version_id, opened.band))
        if price is None:
            return "the database does not know its price"
        if is_held:
            return None
        if opened.amount_p is None:
            return None if usage == NOTHING else "its journal does not tell its hold"
        cover = Cover(opened.prompt_tokens, opened.completion_tokens, is_open=False)
        available_p = account.available_p - self._spent_p[opened.tenant_id]
        decided = bill(usage, price, cover, available_p=available_p)
        if decided.discrepancy == "late":
            return "its account cannot pay it"
        self._spent_p[opened.tenant_id] += decided.charge_p
        return None


def _hold_again(session: Session, batch: Sequence[Told], desk: _Desk) -> None:
    if not batch:
        return
    epochs = [
        {"id": epoch_id, "gateway": _GATEWAY, "closed_at": func.now()}
        for epoch_id in {it.epoch_id for it in batch}
    ]
    session.execute(insert(GatewayEpoch).values(epochs).on_conflict_do_nothing())
    now = datetime.now(UTC)
    copy_in(
        session,
        Hold.__tablename__,
        _HOLD_COLUMNS,
        (
            (
                opened.request_id,
                opened.tenant_id,
                opened.api_key_id,
                desk.accounts[opened.tenant_id].account_id,
                told.epoch_id,
                opened.price_version_id,
                opened.band,
                opened.amount_p,
                opened.prompt_tokens,
                opened.completion_tokens,
                "released",
                now,
            )
            for told in batch
            for opened in [told.trace.opened]
        ),
    )
