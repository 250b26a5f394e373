"""Admin routes of usage that could not be settled and waits for a person."""

import uuid
from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, page
from controlplane.api.schemas import Body, Name, Page, Row
from controlplane.billing import rejected

router = APIRouter(prefix="/admin/v1/usage/rejected", tags=["books"], route_class=Contract)


class RejectedOut(Row):
    """A request's end as its gateway tells it. Nothing of it is proven: not even its tenant."""

    request_id: uuid.UUID
    rejected: str = Field(description="why the database does not take it")
    tenant_id: uuid.UUID
    api_key_id: uuid.UUID
    model: str
    path: str
    replica: str | None
    hit_tokens: int
    miss_tokens: int
    output_tokens: int
    finish_reason: str
    started_at: datetime
    staged_at: datetime


class WriteOff(Body):
    reason: Name = Field(examples=["gateway of a test cluster wrote into this database"])


@router.get("")
def list_rejected_usage(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[RejectedOut]:
    """List what could not be settled, newest first. Its holds stay until it is dealt with."""
    found = rejected.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=RejectedOut.model_validate, cursor=lambda row: row.request_id)


@router.post("/{request_id}/retry", status_code=204)
def retry_rejected_usage(request_id: uuid.UUID, session: Db, admin: Admin) -> None:
    """Settle it again, once the cause is gone, such as a tenant that was not there yet."""
    rejected.retry(session, request_id)


@router.post("/{request_id}/write-off", status_code=204)
def write_off_rejected_usage(
    request_id: uuid.UUID, body: WriteOff, session: Db, admin: Admin
) -> None:
    """Give it up for ever: nobody is charged and its hold is given back. The audit log keeps what
    was given up and why."""
    rejected.write_off(session, request_id, actor=admin.actor, reason=body.reason)
