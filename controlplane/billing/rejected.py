"""Usage that settlement has set aside: looked at, tried again or given up. Called by the admin API.

A gateway's journal tells of it and the database contradicts it, so no machine may decide: its row
keeps the reason, its hold stays, and the books are not exact until a person has dealt with it.
"""

import logging
import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.accounts import holds
from controlplane.audit.chain import record
from controlplane.errors import NotFound
from controlplane.usage.models import StagedUsage

_log = logging.getLogger(__name__)


def listing(session: Session, *, after: uuid.UUID | None, limit: int) -> Sequence[StagedUsage]:
    """Return what was set aside, the newest request first, those older than the request `after`."""
    query = (
        select(StagedUsage)
        .where(StagedUsage.rejected.is_not(None))
        .order_by(StagedUsage.request_id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(StagedUsage.request_id < after)
    return session.scalars(query).all()


def retry(session: Session, request_id: uuid.UUID) -> None:
    """Put a request back into the queue, once its cause is gone; else it comes here again.

    Raises:
        NotFound: it is not set aside.
    """
    _locked(session, request_id).rejected = None


def write_off(session: Session, request_id: uuid.UUID, *, actor: str, reason: str) -> None:
    """Give a request up: nobody is charged, its hold is given back, its row goes.

    What is given up is told to the platform's audit chain. An engine that has told of the request
    makes it a finding of reconciliation, `unbilled`, to be explained there.

    Raises:
        NotFound: it is not set aside.
    """
    row = _locked(session, request_id)
    session.delete(row)
    session.flush()
    held = holds.release(session, [request_id])
    _log.warning("usage_written_off", extra={"request_id": request_id, "reason": row.rejected})
    record(
        session,
        tenant_id=None,  # the row's may be of nobody
        actor=actor,
        action="usage_written_off",
        subject=f"request {request_id}",
        details={
            "reason": reason,
            "rejected": row.rejected,
            "claimed_tenant": str(row.tenant_id),
            "model": row.model,
            "hit": row.hit_tokens,
            "miss": row.miss_tokens,
            "output": row.output_tokens,
            "holds_given_back": held,
        },
    )


def _locked(session: Session, request_id: uuid.UUID) -> StagedUsage:
    row = session.get(StagedUsage, request_id, with_for_update=True)
    if row is None or row.rejected is None:
        raise NotFound(f"No usage of request {request_id} is set aside.")
    return row
