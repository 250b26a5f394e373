"""The usage journal's rows on disk: SQLite, every commit forced to the disk. `journal` owns one, in
a thread of its own.

`ended_us` says when an end was recorded, in microseconds since 1970; it grows strictly from row to
row, so that it serves readers as a cursor, even over a database begun anew.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.errors import ConfigError

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x464C5055  # "FLPU", in the file's header
LOCK_SECONDS = 1.0
PRUNED_AT_ONCE = 2_000  # rows in one transaction, so that no request waits long for its own
INTERRUPTED = "interrupted"
COLUMNS = (
    "attempt_id", "request_id", "model", "started_us", "ended_us", "prompt_tokens",
    "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "completion_tokens", "reasoning_tokens",
    "resumed_tokens", "finish_reason",
)  # fmt: skip
SCHEMA = f"""
BEGIN;
CREATE TABLE attempts (
    attempt_id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    started_us INTEGER NOT NULL,
    ended_us INTEGER UNIQUE,
    prompt_tokens INTEGER NOT NULL,
    prompt_cache_hit_tokens INTEGER NOT NULL,
    prompt_cache_miss_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    resumed_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_request ON attempts (request_id);
PRAGMA application_id = {APPLICATION_ID};
COMMIT;
"""
_WRITE = f"INSERT OR REPLACE INTO attempts VALUES ({', '.join(f':{c}' for c in COLUMNS)})"
_READ = f"SELECT {', '.join(COLUMNS)} FROM attempts"


@dataclass(frozen=True, slots=True)
class Row:
    """What one attempt at a request has used so far. `ended_us` None: it runs."""

    attempt_id: str
    request_id: str
    model: str
    started_us: int
    prompt_tokens: int
    prompt_cache_hit_tokens: int
    prompt_cache_miss_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    resumed_tokens: int
    finish_reason: str
    ended_us: int | None = None


class JournalStore:
    """One open database; no other process can open it meanwhile. Any thread, one at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`; rows that still run there are marked interrupted. A database that
        is damaged is set aside. Raises ConfigError."""
        self._path = path
        self._last_us = 0
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in (
                    sqlite3.SQLITE_CORRUPT,
                    sqlite3.SQLITE_NOTADB,
                ):
                    raise
                _set_aside(path, error)
                self._open()
        except sqlite3.Error as error:
            raise ConfigError(f"the usage journal {path} cannot be opened: {_why(error)}") from None

    def write(self, running: Iterable[Row], ended: Iterable[Row]) -> None:
        """Record rows durably, all or none; ends get their `ended_us`. Raises sqlite3.Error."""
        self._follow()
        rows = [asdict(row) for row in running]
        last = self._last_us
        for row in ended:
            last = max(last + 1, time.time_ns() // 1000)
            rows.append({**asdict(row), "ended_us": last})
        self._transact(lambda: self._connection.executemany(_WRITE, rows))
        self._last_us = last

    def probe(self) -> None:
        """Find out whether the disk takes writes. Raises sqlite3.Error."""
        self._follow()
        number = time.time_ns() & 0x7FFFFFFF
        self._transact(lambda: self._connection.execute(f"PRAGMA user_version = {number}"))

    def prune(self, before_us: int) -> bool:
        """Delete some rows that ended before; whether there may be more. Raises sqlite3.Error."""
        oldest = "SELECT attempt_id FROM attempts WHERE ended_us < ? ORDER BY ended_us LIMIT ?"
        cursor = self._transact(
            lambda: self._connection.execute(
                f"DELETE FROM attempts WHERE attempt_id IN ({oldest})", (before_us, PRUNED_AT_ONCE)
            )
        )
        return cursor.rowcount == PRUNED_AT_ONCE

    def find(self, request_id: str) -> list[dict[str, Any]]:
        """All attempts at a request, oldest first."""
        found = self._connection.execute(
            f"{_READ} WHERE request_id = ? ORDER BY started_us", (request_id,)
        )
        return [dict(zip(COLUMNS, row, strict=True)) for row in found]

    def ended_after(self, after_us: int, limit: int) -> list[dict[str, Any]]:
        """The first `limit` rows that ended later, in the order of their ends."""
        found = self._connection.execute(
            f"{_READ} WHERE ended_us > ? ORDER BY ended_us LIMIT ?", (after_us, limit)
        )
        return [dict(zip(COLUMNS, row, strict=True)) for row in found]

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> None:
        self._connection = _connect(self._path)
        self._file = self._path.stat()
        (last,) = self._connection.execute("SELECT max(ended_us) FROM attempts").fetchone()
        self._last_us = max(self._last_us, last or 0)
        self._interrupt()

    def _follow(self) -> None:
        """Open what is at the path now, if it is another file: one that was removed takes writes
        like any, and loses them with this process. Raises sqlite3.Error."""
        if self._path.exists() and os.path.samestat(self._path.stat(), self._file):
            return
        self._connection.close()
        try:
            self._open()
        except (ConfigError, OSError) as error:
            raise sqlite3.DatabaseError(str(error)) from None
        logger.error("the usage journal %s was removed or replaced; another begins", self._path)

    def _interrupt(self) -> None:
        """End the rows of requests that a process before this one left running."""
        running = self._connection.execute("SELECT attempt_id FROM attempts WHERE ended_us IS NULL")
        ends = []
        for (attempt_id,) in running.fetchall():
            self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
            ends.append((self._last_us, INTERRUPTED, attempt_id))
        if ends:
            update = "UPDATE attempts SET ended_us = ?, finish_reason = ? WHERE attempt_id = ?"
            self._transact(lambda: self._connection.executemany(update, ends))
            logger.warning("%d requests of an earlier run were interrupted", len(ends))

    def _transact(self, work: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            cursor = work()
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:  # some failures roll back by themselves
                self._connection.execute("ROLLBACK")
            raise
        return cursor


class _Damaged(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        # One process alone, for as long as it lives: two workers must not end each other's rows.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (kind,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            connection.executescript(SCHEMA)
        elif kind != APPLICATION_ID:
            raise ConfigError(f"{path} is a database, but no usage journal; choose another path")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _Damaged("its pages do not fit together")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path, error: sqlite3.Error) -> None:
    """Keep a damaged database for whoever wants to look into it."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1000}")
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    logger.error("the usage journal is damaged (%s); it is now %s, a new one begins", error, aside)


def _why(error: sqlite3.Error) -> str:
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
        return "another worker uses it; give each its own with --journal"
    return str(error)
