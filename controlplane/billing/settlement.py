"""Turns staged usage into charges. Called by `jobs`, every second and at the end of `up`.

One transaction per batch: the usage row, the ledger transaction, the hold's end, the account's sums
and the staging row's deletion commit together or not at all. The ledger row is the record that a
request has been charged, for ever, so a request staged again costs nothing again.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import (
    BigInteger,
    String,
    Uuid,
    any_,
    bindparam,
    column,
    delete,
    exc,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session

from controlplane import metrics
from controlplane.accounts import budgets, funds, holds, ledger
from controlplane.accounts.budgets import Limits
from controlplane.accounts.funds import Funds, LockedFunds
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.models import GatewayEpoch, Hold
from controlplane.arrays import ArrayOf
from controlplane.billing.charging import Bill, Cover, bill
from controlplane.pricing import book
from controlplane.pricing.rating import Price
from controlplane.usage.models import StagedUsage, UsageEvent
from controlplane.usage.records import TokenUsage

# Engines' journals are read every two seconds: what they know of a lost request comes within this.
WITNESS_SECONDS = 6.0

_log = logging.getLogger(__name__)

# What a usage row takes over from the staged one, inside the database.
_COPIED = (
    "request_id",
    "tenant_id",
    "api_key_id",
    "model",
    "path",
    "replica",
    "thinking",
    "streamed",
    "finish_reason",
    "started_at",
    "first_token_at",
    "finished_at",
)
# What is decided here.
_DECIDED = {
    "request_id": Uuid,
    "hit_tokens": BigInteger,
    "miss_tokens": BigInteger,
    "output_tokens": BigInteger,
    "reasoning_tokens": BigInteger,
    "price_version_id": Uuid,
    "band": String,
    "charge_p": BigInteger,
    "held_p": BigInteger,
}
_REQUESTS = any_(bindparam("request_ids", type_=ArrayOf(Uuid)))
_CLAIM = (
    select(
        StagedUsage.request_id,
        StagedUsage.tenant_id,
        StagedUsage.api_key_id,
        StagedUsage.model,
        StagedUsage.path,
        StagedUsage.replica,
        StagedUsage.hit_tokens,
        StagedUsage.miss_tokens,
        StagedUsage.output_tokens,
        StagedUsage.reasoning_tokens,
        StagedUsage.price_version_id,
        StagedUsage.band,
    )
    .where(StagedUsage.rejected.is_(None))
    .order_by(StagedUsage.staged_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_SETTLED = select(UsageEvent.request_id).where(UsageEvent.request_id == _REQUESTS)
_END_HOLDS = (
    delete(Hold)
    .where(Hold.request_id == _REQUESTS)
    .returning(
        Hold.request_id,
        Hold.tenant_id,
        Hold.api_key_id,
        Hold.price_version_id,
        Hold.band,
        Hold.amount_p,
        Hold.prompt_tokens,
        Hold.completion_tokens,
        Hold.state,
    )
    .execution_options(synchronize_session=False)
)
_BILLED = (
    func.unnest(*(bindparam(name, type_=ArrayOf(it)) for name, it in _DECIDED.items()))
    .table_valued(*(column(name, it) for name, it in _DECIDED.items()))
    .render_derived()
)
_RECORD = insert(UsageEvent.metadata.tables[UsageEvent.__tablename__]).from_select(
    [*_COPIED, *(name for name in _DECIDED if name != "request_id")],
    select(
        *(getattr(StagedUsage, name) for name in _COPIED),
        *(_BILLED.c[name] for name in _DECIDED if name != "request_id"),
    )
    .join(_BILLED, _BILLED.c.request_id == StagedUsage.request_id)
    # Said twice, for the plan: else it may read the whole queue.
    .where(StagedUsage.request_id == any_(bindparam("request_id", type_=ArrayOf(Uuid)))),
)
_UNSTAGE = (
    delete(StagedUsage)
    .where(StagedUsage.request_id == _REQUESTS)
    .execution_options(synchronize_session=False)
)


# A row of `_CLAIM` or of `_END_HOLDS`.
_Row: TypeAlias = Any


class _Rejected(Exception):
    """A staged row contradicts the database; a person must look at it."""


class _Charge(msgspec.Struct, frozen=True):
    row: _Row
    price: Price
    bill: Bill
    charge_p: int
    held_p: int


def settle(session: Session, limit: int = 250) -> int:
    """Settle at most `limit` staged requests, oldest first; return how many were dealt with.

    Several processes may settle at once: each claims rows of its own. A row that cannot be settled
    is set aside with the reason and does not hold up the others. `limit` is small because a batch
    keeps its accounts locked, and a new request of theirs waits that long.
    """
    claimed = session.execute(_CLAIM, {"most": limit}).all()
    if not claimed:
        return 0
    try:
        with session.begin_nested():
            _settle_batch(session, claimed)
    except (_Rejected, exc.IntegrityError, exc.DataError):
        # All before the first of them takes the revenue account: see `funds.unlocked`.
        funds.lock(session, tenant_ids={row.tenant_id for row in claimed})
        for row in claimed:
            _settle_alone(session, row)
    return len(claimed)


def release_dead(session: Session, now: datetime, limit: int = 1000) -> int:
    """Release open holds that closed epochs left without any usage; return how many.

    Such a request was never dispatched, or its journal is lost, and no engine has told of it within
    `WITNESS_SECONDS` of its epoch's end: it is waived.
    """
    request_ids = session.scalars(
        select(Hold.request_id)
        .join(GatewayEpoch, GatewayEpoch.id == Hold.epoch_id)
        .where(
            Hold.state == "open",
            GatewayEpoch.closed_at < now - timedelta(seconds=WITNESS_SECONDS),
            ~select(StagedUsage).where(StagedUsage.request_id == Hold.request_id).exists(),
        )
        .limit(limit)
    ).all()
    released = holds.release(session, request_ids) if request_ids else 0
    metrics.RELEASED_HOLDS.inc(released)
    return released


def waiting(session: Session) -> int:
    """Return how many staged requests are in the queue."""
    return session.execute(
        select(func.count()).select_from(StagedUsage).where(StagedUsage.rejected.is_(None))
    ).scalar_one()


def _settle_alone(session: Session, row: _Row) -> None:
    try:
        with session.begin_nested():
            if not _is_settled(session, row):
                _settle_batch(session, [row])
    except (_Rejected, exc.IntegrityError, exc.DataError) as error:
        reason = str(error) if isinstance(error, _Rejected) else type(error).__name__
        session.execute(
            update(StagedUsage)
            .where(StagedUsage.request_id == row.request_id)
            .values(rejected=reason)
            .execution_options(synchronize_session=False)
        )
        metrics.REJECTED_USAGE.inc()
        _log.error("usage_rejected", extra={"request_id": row.request_id, "reason": reason})


def _is_settled(session: Session, row: _Row) -> bool:
    """Take a row off the queue that came twice; its hold, if there is one, is given back elsewhere.

    Asked of single rows alone. In a batch it is the key of the usage row that finds one out.
    """
    of_request = {"request_ids": [row.request_id]}
    if session.scalar(_SETTLED, of_request) is None:
        return False
    session.execute(_UNSTAGE, of_request)
    return True


def _settle_batch(session: Session, rows: Sequence[_Row]) -> None:
    """Settle rows that nobody has settled.

    Raises:
        IntegrityError, DataError: one was settled before, or contradicts the database.
        _Rejected: one of them cannot be settled.
    """
    accounts = funds.lock(session, tenant_ids={row.tenant_id for row in rows})
    # With the accounts locked, nobody else can settle or release these requests.
    of_requests = {"request_ids": [row.request_id for row in rows]}
    ended = session.execute(_END_HOLDS, of_requests)
    hold_of = {hold.request_id: hold for hold in ended}
    limits = budgets.of_keys(session, {row.api_key_id for row in rows})
    charges = _charges(session, rows, hold_of, accounts, limits)
    session.execute(_RECORD, _decided(charges))
    session.execute(_UNSTAGE, of_requests)
    funds.write(session, accounts.by_tenant.values())
    budgets.write(session, limits.by_id.values())
    # Last: every settlement waits for the revenue account from here on, and for it alone.
    revenue = funds.unlocked(session, "revenue")
    ledger.post(session, [_posting(c, accounts, revenue) for c in charges if c.charge_p])
    metrics.SETTLED_REQUESTS.inc(len(charges))
    metrics.SETTLED_PICODOLLARS.inc(sum(charge.charge_p for charge in charges))
    for charge in charges:
        _tell(charge)


def _charges(
    session: Session,
    rows: Sequence[_Row],
    hold_of: Mapping[uuid.UUID, _Row],
    accounts: LockedFunds,
    limits: Limits,
) -> list[_Charge]:
    """Decide every bill, take the ended holds off the locked accounts, count against budgets."""
    pins = {(row.price_version_id, row.band) for row in (*rows, *hold_of.values())}
    price_of = book.pinned(session, pins)
    charges = []
    charged_p: Counter[uuid.UUID] = Counter()
    for row in rows:
        hold = hold_of.get(row.request_id)
        account = _account(row, hold, accounts)
        pinned = hold or row
        price = price_of[pinned.price_version_id, pinned.band]
        decided = bill(
            TokenUsage(row.hit_tokens, row.miss_tokens, row.output_tokens, row.reasoning_tokens),
            price,
            _cover(hold),
            available_p=account.available_p - charged_p[row.tenant_id],
        )
        charge_p = decided.charge_p
        if hold is not None and hold.state == "open":
            assert charge_p <= hold.amount_p
            account.held_p -= hold.amount_p
            limits.hold(row.api_key_id, -hold.amount_p)
        charged_p[row.tenant_id] += charge_p
        limits.spend(row.api_key_id, charge_p)
        charges.append(_Charge(row, price, decided, charge_p, hold.amount_p if hold else 0))
    return charges


def _account(row: _Row, hold: _Row | None, accounts: LockedFunds) -> Funds:
    account = accounts.by_tenant.get(row.tenant_id)
    if account is None:
        raise _Rejected("the tenant does not exist")
    if hold is not None and (hold.tenant_id, hold.api_key_id) != (row.tenant_id, row.api_key_id):
        raise _Rejected("the hold is another key's")
    return account


def _cover(hold: _Row | None) -> Cover | None:
    if hold is None:
        return None
    return Cover(hold.prompt_tokens, hold.completion_tokens, is_open=hold.state == "open")


def _decided(charges: Sequence[_Charge]) -> dict[str, list[object]]:
    """Return `_DECIDED`, column by column."""
    rows = (
        (
            charge.row.request_id,
            charge.bill.usage.hit_tokens,
            charge.bill.usage.miss_tokens,
            charge.bill.usage.output_tokens,
            charge.bill.usage.reasoning_tokens,
            charge.price.version_id,
            charge.price.band,
            charge.charge_p,
            charge.held_p,
        )
        for charge in charges
    )
    return {
        name: list(values) for name, values in zip(_DECIDED, zip(*rows, strict=True), strict=True)
    }


def _posting(charge: _Charge, accounts: LockedFunds, revenue: Funds) -> Posting:
    account = accounts.by_tenant[charge.row.tenant_id]
    return Posting(
        kind="charge",
        tenant_id=charge.row.tenant_id,
        request_id=charge.row.request_id,
        entries=[
            *(Entry(account, -line.amount_p, line) for line in charge.bill.lines),
            Entry(revenue, charge.charge_p),
        ],
        reason=f"{charge.row.model} on {charge.row.path}",
        author="settlement",
    )


def _tell(charge: _Charge) -> None:
    if charge.bill.discrepancy is None:
        return
    row, billed = charge.row, charge.bill.usage
    metrics.BILLING_DISCREPANCIES.labels(charge.bill.discrepancy).inc()
    _log.error(
        "billed_less_than_reported",
        extra={
            "request_id": row.request_id,
            "replica": row.replica,
            "reason": charge.bill.discrepancy,
            "reported": [row.hit_tokens, row.miss_tokens, row.output_tokens],
            "billed": [billed.hit_tokens, billed.miss_tokens, billed.output_tokens],
        },
    )
