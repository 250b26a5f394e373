"""The whole way back from a dump: settle, replay, ask the engines, check. Called by `flashplane
restore`, while no gateway runs.

Only what journals tell comes back: charges of requests. Top-ups, prices, customers and GPU time of
the lost hour are not in them; what needs those is told.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from controlplane.accounts import epochs
from controlplane.accounts.ledger_hash import LedgerHash, ledger_hash
from controlplane.accounts.models import Hold
from controlplane.arrays import ArrayOf
from controlplane.billing.books import check_books
from controlplane.billing.reconcile import verdict
from controlplane.billing.reconcile.models import WitnessedAttempt
from controlplane.billing.reconcile.recovery import stage_witnessed
from controlplane.billing.restoring.journals import Attempt, Journals, engines
from controlplane.billing.restoring.replay import SetAside, known, replay, settle_all
from controlplane.usage.records import TokenUsage
from controlplane.usage.segments import Damage

BATCH = 1000
_HELD = select(Hold.request_id, Hold.epoch_id).where(
    Hold.request_id == any_(bindparam("request_ids", type_=ArrayOf(Uuid))), Hold.state == "open"
)
_WHOSE = "only an engine knows it, and not whose it was"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, and what the books are after it.

    `witnessed` requests were billed by an engine's word, because no gateway's journal has them.
    """

    billed: int
    already_there: int
    witnessed: list[uuid.UUID]
    set_aside: list[SetAside]
    damages: list[Damage]
    ledger: LedgerHash
    violations: list[str]


@dataclass(slots=True)
class _Count:
    billed: int = 0
    already_there: int = 0
    set_aside: list[SetAside] = field(default_factory=list)


def restore(
    sessions: sessionmaker[Session], *, folders: Sequence[Path], engine_files: Sequence[Path] = ()
) -> Restored:
    """Bill every request that journals tell of and the database does not.

    Args:
        folders: gateways' journal folders. Who calls owns them.
        engine_files: engines' journals, for what no gateway's tells.

    Raises:
        StartupError: a file is not an engine's journal.
    """
    # First: what it spends must not be promised to others.
    with sessions.begin() as session:
        settle_all(session)
    found, count = Journals(folders), _Count()
    told = found.told()
    while batch := list(islice(told, BATCH)):
        with sessions.begin() as session:
            done = replay(session, batch)
        count.billed += done.billed
        count.already_there += done.already_there
        count.set_aside += done.set_aside
    with sessions.begin() as session:
        for epoch_id in sorted(epochs.known(session, found.epoch_ids)):
            epochs.close(session, epoch_id)
    # Of what is billed the database knows; of what is not, a gateway's word comes first.
    aside = {it.request_id for it in count.set_aside}
    untold = (it for it in engines(engine_files) if it[0].request_id not in aside)
    witnessed, orphans = _ask_engines(sessions, untold)
    with sessions.begin() as session:
        books = check_books(session)
        hashed = ledger_hash(session)
    return Restored(
        billed=count.billed,
        already_there=count.already_there,
        witnessed=witnessed,
        set_aside=[*count.set_aside, *orphans],
        damages=found.damages,
        ledger=hashed,
        violations=books.violations,
    )


def _ask_engines(
    sessions: sessionmaker[Session], attempts: Iterator[list[Attempt]]
) -> tuple[list[uuid.UUID], list[SetAside]]:
    """Bill what only engines know of where a hold says whose it was; return that, and the rest."""
    witnessed: list[uuid.UUID] = []
    orphans: list[SetAside] = []
    closing: set[uuid.UUID] = set()
    while batch := list(islice(attempts, BATCH)):
        of_request = {those[0].request_id: those for those in batch}
        with sessions.begin() as session:
            unknown = of_request.keys() - known(session, list(of_request))
            held = session.execute(_HELD, {"request_ids": list(unknown)})
            epoch_of = {hold.request_id: hold.epoch_id for hold in held}
            told = [_row(it) for request_id in epoch_of for it in of_request[request_id]]
            if told:
                session.execute(insert(WitnessedAttempt).on_conflict_do_nothing(), told)
        closing.update(epoch_of.values())
        witnessed += sorted(epoch_of)
        orphans += (
            SetAside(it, None, _usage(of_request[it]), _WHOSE)
            for it in sorted(unknown - epoch_of.keys())
        )
    with sessions.begin() as session:
        # Their gateways' journals are lost: nothing else will come of these lives.
        for epoch_id in sorted(closing):
            epochs.close(session, epoch_id)
        while stage_witnessed(session):
            settle_all(session)
    return witnessed, orphans


def _usage(attempts: Sequence[Attempt]) -> TokenUsage:
    return verdict.witnessed(
        [
            verdict.Attempt(
                TokenUsage(it.hit_tokens, it.miss_tokens, it.output_tokens, it.reasoning_tokens)
            )
            for it in attempts
        ]
    )


def _row(attempt: Attempt) -> dict[str, object]:
    told = asdict(attempt)
    started_us, ended_us = told.pop("started_us"), told.pop("ended_us")
    return told | {"started_at": _moment(started_us), "ended_at": _moment(ended_us)}


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
