"""Brings a gateway back: replays what its dead lives journalled, then begins a new life.

Called once by the gateway before it takes requests, and by `flashplane gateway-replay` for one that
will not come back. Whatever the moment of a crash, doing it again ends the same: staging is
idempotent, epochs close in the transaction that stages them, folders are removed only after it.
"""

import logging
import shutil
import uuid
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from sqlalchemy import Uuid, any_, bindparam, func, select
from sqlalchemy.orm import Session, sessionmaker

from controlplane.accounts import epochs
from controlplane.accounts.models import Hold
from controlplane.arrays import ArrayOf
from controlplane.metrics import JOURNAL_DAMAGES
from controlplane.usage import segments, sink
from controlplane.usage.journal import JournalDir
from controlplane.usage.segments import SUFFIX, Damage
from controlplane.usage.traces import Trace

_HELD = select(Hold.request_id).where(
    Hold.request_id == any_(bindparam("request_ids", type_=ArrayOf(Uuid)))
)
# A folder's name when the database does not know its epoch, or not all of its holds.
FOREIGN = "foreign-"
# Requests that have ended and are in memory at once.
_BATCH = 1000

_log = logging.getLogger(__name__)


def recover(
    session_factory: sessionmaker[Session], directory: JournalDir, gateway: str
) -> uuid.UUID:
    """Stage every dead journal, close the dead epochs and return a new open one.

    The caller owns `directory`, so whatever it holds was left by the dead.
    """
    left = directory.epochs()
    with session_factory.begin() as session:
        # Two processes of one name and different folders must not close each other half-way.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(gateway, 0))))
        sink.by_index(session)
        dead = epochs.open_of(session, gateway)
        ours = epochs.known(session, left)
        foreign = set(left) - ours
        for epoch_id in sorted(ours):
            if not _stage(session, directory.folder(epoch_id), epoch_id):
                foreign.add(epoch_id)
        for epoch_id in {*dead, *ours}:
            epochs.close(session, epoch_id)
        new = epochs.begin(session, gateway)
    _clear(directory, replayed=ours - foreign, foreign=foreign)
    return new


def replay(session_factory: sessionmaker[Session], directory: JournalDir, gateway: str) -> None:
    """Stage what a gateway left that will not come back, and close its lives.

    The caller owns `directory`, as for `recover`.
    """
    epoch_id = recover(session_factory, directory, gateway)
    with session_factory.begin() as session:
        epochs.close(session, epoch_id)


def _stage(session: Session, folder: Path, epoch_id: uuid.UUID) -> bool:
    """Stage what an epoch's journal tells; return whether the database had all of its holds."""
    damages: list[Damage] = []
    ends, staged, all_held = segments.ends(folder, damages=damages), 0, True
    while batch := list(islice(ends, _BATCH)):
        unheld = _unheld(session, batch)
        staged += sink.stage(session, [it for it in batch if it.opened.request_id not in unheld])
        all_held = all_held and not unheld
    for damage in damages:
        JOURNAL_DAMAGES.inc()
        _log.error(
            "journal_damaged",
            extra={"segment": str(damage.segment), "offset_bytes": damage.offset_bytes},
        )
    _log.info("journal_replayed", extra={"epoch_id": str(epoch_id), "requests": staged})
    return all_held


def _unheld(session: Session, traces: Sequence[Trace]) -> set[uuid.UUID]:
    """Return the requests whose holds this database never had: it is from a dump, older than them.

    Staged, they would cost nothing; `flashplane restore` bills them.
    """
    request_ids = [it.opened.request_id for it in traces if it.opened.amount_p is not None]
    unheld = set(request_ids).difference(session.scalars(_HELD, {"request_ids": request_ids}))
    return unheld - sink.known(session, list(unheld)) if unheld else unheld


def _clear(
    directory: JournalDir, *, replayed: Collection[uuid.UUID], foreign: Collection[uuid.UUID]
) -> None:
    for epoch_id in replayed:
        folder = directory.folder(epoch_id)
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            directory.kept.take(path, epoch_id)
        shutil.rmtree(folder)
    for epoch_id in foreign:
        # Money of another database, or of this one before a dump of it came back: not ours to
        # bill, nor to throw away.
        aside = directory.path / f"{FOREIGN}{epoch_id}"
        directory.folder(epoch_id).rename(aside)
        _log.error("journal_of_another_database", extra={"segment": str(aside)})
