"""Answers given to requests with an Idempotency-Key, so that one sent twice is done once.

Called by the REST API around every mutating route, in the transaction that does the work: an answer
is kept exactly when its work is. Answers are encrypted with a key that derives from the pepper,
because some tell a new key's token; a day later `forget` removes them.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, IdempotencyKeyReused, StillRunning
from controlplane.tenants.models import GivenAnswer

KEPT = timedelta(hours=24)
_FORGOTTEN_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as far as its answer may be given again.

    Attributes:
        id: SHA-256 of who asked, what, and the key.
        fingerprint: SHA-256 of the query and the body.
    """

    id: bytes
    fingerprint: bytes


def sent(*, caller: str, method: str, path: str, key: str, query: bytes, body: bytes) -> Sent:
    """Return what identifies a request. The same key of another caller or path is another key."""
    return Sent(
        _digest(caller.encode(), method.encode(), path.encode(), key.encode()),
        _digest(query, body),
    )


def given(session: Session, pepper: bytes, request: Sent) -> tuple[int, bytes] | None:
    """Return status and body of the answer that `request` got before; None if it got none.

    Until the transaction ends nobody else may serve the same request.

    Raises:
        StillRunning: another transaction serves it now.
        IdempotencyKeyReused: the key came with another body.
        Conflict: the answer cannot be read any more, since the pepper is another.
    """
    number = int.from_bytes(request.id[:8], signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(number))):
        raise StillRunning("A request with this Idempotency-Key is running; ask again in a second.")
    row = session.get(GivenAnswer, request.id)
    if row is None or row.created_at < datetime.now(UTC) - KEPT:
        return None
    if row.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused(
            "This Idempotency-Key came with another request; take a new one.",
            param="Idempotency-Key",
        )
    try:
        return row.status, _cipher(pepper).decrypt(row.body)
    except InvalidToken:
        raise Conflict(
            "This request was served already; its answer cannot be given again.",
            code="answer_lost",
        ) from None


def keep(session: Session, pepper: bytes, request: Sent, status: int, body: bytes) -> None:
    """Keep an answer; `given` found none in this transaction."""
    values = {
        "fingerprint": request.fingerprint,
        "status": status,
        "body": _cipher(pepper).encrypt(body),
        "created_at": datetime.now(UTC),
    }
    session.execute(
        insert(GivenAnswer)
        .values(id=request.id, **values)
        .on_conflict_do_update(index_elements=["id"], set_=values)
    )


def forget(session: Session, now: datetime) -> int:
    """Remove some answers that are older than a day; return how many. Called by the jobs."""
    old = (
        select(GivenAnswer.id)
        .where(GivenAnswer.created_at < now - KEPT)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    gone = session.scalars(
        delete(GivenAnswer).where(GivenAnswer.id.in_(old)).returning(GivenAnswer.id)
    )
    return len(gone.all())


def _digest(*parts: bytes) -> bytes:
    # Each part's length goes first, so that no two lists of parts look alike.
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8) + part)
    return whole.digest()


def _cipher(pepper: bytes) -> Fernet:
    key = hmac.digest(pepper, b"answers to requests with an Idempotency-Key", "sha256")
    return Fernet(base64.urlsafe_b64encode(key))
