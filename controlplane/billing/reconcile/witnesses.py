"""Reads engines' journals into PostgreSQL: the second witness. Called by `jobs`.

Each replica is asked for what ended since it was last asked, side by side, within a few seconds;
one that is slow or gone is asked again a while later, from where it was left. What an engine says
is held to a schema before anybody believes it.
"""

import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import httpx
import msgspec
from msgspec import Meta
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from controlplane.billing.reconcile.models import EngineJournal, WitnessedAttempt
from controlplane.registry.heartbeats import Count, Text
from controlplane.registry.replicas import Replica

ASKED_AT_ONCE = 16
PAGE_ROWS = 1000
MOST_PAGES = 5
TIMEOUT_SECONDS = 2.0
# One that hangs must not hold up settlement, which runs in the same process, again and again.
RESTS = timedelta(seconds=30)
# Engines that keep no journal are asked again so often: another version may keep one.
ASKED_AGAIN = timedelta(minutes=10)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_log = logging.getLogger(__name__)
_Microseconds = Annotated[int, Meta(ge=0, lt=2**53)]


class _Attempt(msgspec.Struct):
    attempt_id: Text
    request_id: Text
    model: Text
    started_us: _Microseconds
    ended_us: _Microseconds
    prompt_cache_hit_tokens: Count
    prompt_cache_miss_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    finish_reason: Text
    resumed_tokens: Count = 0


class _Page(msgspec.Struct):
    attempts: list[_Attempt]
    next: _Microseconds


@dataclass(frozen=True, slots=True)
class _Told:
    """What one replica said; `kept` False: it keeps no journal."""

    replica: str
    asked_at: datetime
    after_us: int
    attempts: list[_Attempt]
    kept: bool = True


class Reader:
    """Reads engines' journals; remembers which engines did not answer.

    Args:
        token: what engines ask for; empty: nothing.
    """

    def __init__(self, sessions: sessionmaker[Session], *, token: str) -> None:
        self._sessions = sessions
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._resting: dict[str, datetime] = {}

    def read(self, replicas: Sequence[Replica], now: datetime) -> int:
        """Ask `replicas` for what ended since they were last asked; return how many attempts are
        new. What ended until `now`, a time before this call, is then known.

        Raises:
            sqlalchemy.exc.OperationalError: the database is down.
        """
        with self._sessions.begin() as session:
            journals = {it.replica: it for it in session.scalars(select(EngineJournal))}
        self._resting = {who: until for who, until in self._resting.items() if until > now}
        asked = [it for it in replicas if self._is_due(it, journals.get(it.id), now)]
        with (
            httpx.Client(headers=self._headers, timeout=TIMEOUT_SECONDS, trust_env=False) as http,
            ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="witness") as threads,
        ):
            answers = list(threads.map(lambda it: _ask(http, it, journals.get(it.id), now), asked))
        new = 0
        for replica, told in zip(asked, answers, strict=True):
            if told is None:
                self._resting[replica.id] = now + RESTS
                continue
            with self._sessions.begin() as session:
                new += _write(session, told)
        return new

    def _is_due(self, replica: Replica, journal: EngineJournal | None, now: datetime) -> bool:
        if replica.id in self._resting:
            return False
        return journal is None or journal.kept or journal.read_until < now - ASKED_AGAIN


def _ask(
    http: httpx.Client, replica: Replica, journal: EngineJournal | None, now: datetime
) -> _Told | None:
    """Return what a replica says; None when it does not answer, or says what nobody understands."""
    after_us = journal.after_us if journal else 0
    attempts: list[_Attempt] = []
    try:
        for _ in range(MOST_PAGES):
            page = _page(http, replica, after_us)
            if page is None:
                return _Told(replica.id, now, 0, [], kept=False)
            attempts += page.attempts
            after_us = max(after_us, page.next)
            if len(page.attempts) < PAGE_ROWS:
                return _Told(replica.id, now, after_us, attempts)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
        _log.warning("journal_not_read", extra={"replica": replica.id, "reason": str(error)[:200]})
        return None
    # There is more: what ended after the last of these is not known yet.
    return _Told(replica.id, min(now, _moment(after_us)), after_us, attempts)


def _page(http: httpx.Client, replica: Replica, after_us: int) -> _Page | None:
    """Return a page of a journal; None when the engine keeps none."""
    answer = http.get(f"{replica.url}/usage", params={"after": after_us, "limit": PAGE_ROWS})
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    return msgspec.json.decode(answer.content, type=_Page)


def _write(session: Session, told: _Told) -> int:
    rows = [row for row in (_row(told.replica, it) for it in told.attempts) if row is not None]
    new = 0
    if rows:
        statement = insert(WitnessedAttempt).on_conflict_do_nothing()
        new = len(session.scalars(statement.returning(WitnessedAttempt.attempt_id), rows).all())
    added = insert(EngineJournal).values(
        replica=told.replica,
        after_us=told.after_us,
        kept=told.kept,
        # Journals reach back further than a replica's first reading here.
        since=min((_moment(it.started_us) for it in told.attempts), default=told.asked_at),
        read_until=told.asked_at,
    )
    session.execute(
        added.on_conflict_do_update(
            index_elements=[EngineJournal.replica],
            set_={
                "after_us": added.excluded.after_us,
                "kept": added.excluded.kept,
                "read_until": added.excluded.read_until,
            },
        )
    )
    return new


def _row(replica: str, attempt: _Attempt) -> dict[str, object] | None:
    """Return an attempt as a row; None when no gateway of ours can have asked for it."""
    try:
        request_id = uuid.UUID(attempt.request_id)
    except ValueError:
        return None
    return {
        "replica": replica,
        "attempt_id": attempt.attempt_id,
        "request_id": request_id,
        "model": attempt.model,
        "hit_tokens": attempt.prompt_cache_hit_tokens,
        "miss_tokens": attempt.prompt_cache_miss_tokens,
        "output_tokens": attempt.completion_tokens,
        "reasoning_tokens": attempt.reasoning_tokens,
        "resumed_tokens": attempt.resumed_tokens,
        "finish_reason": attempt.finish_reason,
        "started_at": _moment(attempt.started_us),
        "ended_at": _moment(attempt.ended_us),
    }


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
