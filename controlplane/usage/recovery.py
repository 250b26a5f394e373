"""Brings a gateway back: replays what its dead lives journalled, then begins a new life.

Called once by the gateway before it takes requests, and by `flashplane gateway-replay` for one that
will not come back. Whatever the moment of a crash, doing it again ends the same: staging is
idempotent, epochs close in the transaction that stages them, folders are removed only after it.
"""

import logging
import shutil
import uuid
from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from controlplane.accounts import epochs
from controlplane.metrics import JOURNAL_DAMAGES
from controlplane.usage import sink
from controlplane.usage.journal import JournalDir
from controlplane.usage.segments import SUFFIX, Replay, read

# A folder's name when the database does not know its epoch.
FOREIGN = "foreign-"

_log = logging.getLogger(__name__)


def recover(
    session_factory: sessionmaker[Session], directory: JournalDir, gateway: str
) -> uuid.UUID:
    """Stage every dead journal, close the dead epochs and return a new open one.

    The caller owns `directory`, so whatever it holds was left by the dead.
    """
    replays = {epoch_id: read(directory.folder(epoch_id)) for epoch_id in directory.epochs()}
    for replay in replays.values():
        _report(replay)
    with session_factory.begin() as session:
        # Two processes of one name and different folders must not close each other half-way.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(gateway, 0))))
        dead = epochs.open_of(session, gateway)
        ours = epochs.known(session, replays)
        for epoch_id in ours:
            staged = sink.stage(session, list(replays[epoch_id].traces.values()))
            _log.info("journal_replayed", extra={"epoch_id": str(epoch_id), "requests": staged})
        for epoch_id in {*dead, *ours}:
            epochs.close(session, epoch_id)
        new = epochs.begin(session, gateway)
    _clear(directory, replayed=ours, foreign=replays.keys() - ours)
    return new


def replay(session_factory: sessionmaker[Session], directory: JournalDir, gateway: str) -> None:
    """Stage what a gateway left that will not come back, and close its lives.

    The caller owns `directory`, as for `recover`.
    """
    epoch_id = recover(session_factory, directory, gateway)
    with session_factory.begin() as session:
        epochs.close(session, epoch_id)


def _report(replay: Replay) -> None:
    for damage in replay.damages:
        JOURNAL_DAMAGES.inc()
        _log.error(
            "journal_damaged",
            extra={"segment": str(damage.segment), "offset_bytes": damage.offset_bytes},
        )


def _clear(
    directory: JournalDir, *, replayed: Collection[uuid.UUID], foreign: Collection[uuid.UUID]
) -> None:
    for epoch_id in replayed:
        folder = directory.folder(epoch_id)
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            directory.kept.take(path, epoch_id)
        shutil.rmtree(folder)
    for epoch_id in foreign:
        # Another database's money: not ours to bill, nor to throw away.
        aside = directory.path / f"{FOREIGN}{epoch_id}"
        directory.folder(epoch_id).rename(aside)
        _log.error("journal_of_another_database", extra={"segment": str(aside)})
