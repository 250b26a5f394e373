"""Writes audit events, each chained to the one before. Called for every change by the REST API.

Every tenant has a chain, and the platform has one. A chain's lock is held until commit, so events
stand in the order in which their transactions committed, and no two ever follow the same one.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from controlplane.audit.models import PLATFORM, AuditEvent
from controlplane.audit.redaction import clean, redact

BEGINNING = bytes(hashlib.sha256().digest_size)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCK_SPACE = 0x61756469  # "audi": our own numbers among the database's advisory locks


def record(
    session: Session,
    *,
    tenant_id: uuid.UUID | None,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object],
) -> None:
    """Append an event to a tenant's chain, or to the platform's without one.

    Call it last in a transaction: it locks the chain until the commit, and who waits for a row
    meanwhile could wait for ever. What looks like a secret is never stored, see `redaction`.
    """
    chain = tenant_id or PLATFORM
    session.execute(select(func.pg_advisory_xact_lock(_lock_key(chain))))
    # A statement of its own: it must see what the lock's holder before us committed.
    last = session.execute(
        select(AuditEvent.seq, AuditEvent.hash, func.clock_timestamp())
        .where(AuditEvent.chain == chain)
        .order_by(AuditEvent.seq.desc())
        .limit(1)
    ).one_or_none()
    seq, previous_hash = (last[0] + 1, last[1]) if last else (1, BEGINNING)
    at = last[2] if last else session.scalar(select(func.clock_timestamp()))
    assert at is not None
    told = {
        "actor": clean(actor),
        "action": clean(action),
        "subject": clean(subject),
        "details": redact(details),
    }
    event = {"chain": chain, "seq": seq, "at": at, **told, "previous_hash": previous_hash}
    session.execute(
        insert(AuditEvent).values(**event, tenant_id=tenant_id, hash=event_hash(**event))
    )


def event_hash(
    *,
    chain: uuid.UUID,
    seq: int,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object],
    previous_hash: bytes,
) -> bytes:
    """Return the SHA-256 of an event as JSON: keys sorted, no blanks, ASCII, time in whole us.

    PostgreSQL keeps microseconds, so nothing finer is ever hashed.
    """
    canonical = json.dumps(
        {
            "chain": str(chain),
            "seq": seq,
            "at_us": (at - _EPOCH) // timedelta(microseconds=1),
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": details,
            "previous_hash": previous_hash.hex(),
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode()).digest()


def _lock_key(chain: uuid.UUID) -> int:
    """Two chains with the same key only wait for each other."""
    digest = hashlib.sha256(_LOCK_SPACE.to_bytes(4) + chain.bytes).digest()
    return int.from_bytes(digest[:8], signed=True)
