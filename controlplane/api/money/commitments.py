"""Commitments of tenants: made by admins, seen by both."""

import uuid
from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from controlplane.amounts import Usd
from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, Tenant, page
from controlplane.api.schemas import Body, Moment, Name, Page
from controlplane.billing.commitments import promises
from controlplane.deployments.commitments import Commitment
from controlplane.money import p_to_usd, usd_to_p

admin_router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}/commitments", tags=["commitments"], route_class=Contract
)
tenant_router = APIRouter(
    prefix="/v1/account/commitments", tags=["commitments"], route_class=Contract
)


class NewSpend(Body):
    """A promise to spend at least so much on usage in every calendar month (UTC).

    What a month lacks is charged an hour after its end; what the balance does not cover then is
    collected as money comes in. Usage counts by when it was charged, before anything is given back.
    """

    kind: Literal["spend"]
    usd_per_month: Usd = Field(examples=["500.00"])
    starts_at: Moment = Field(description="first moment of a month", examples=["2027-01-01T00:00Z"])
    ends_at: Moment | None = Field(None, description="first moment after it; null: no end")
    reason: Name = "commitment"


class NewReservation(Body):
    """On-demand replicas of one GPU configuration, at a rate of their own, used or not.

    While it holds, up to `replicas` live replicas of the tenant are charged at this rate, whichever
    began first; a replica takes a place that becomes free within a minute. What is not used of a
    day is charged an hour after its end.
    """

    kind: Literal["reserved"]
    configuration: Name = Field(examples=["h200-x4"])
    replicas: int = Field(ge=1, le=promises.MAX_REPLICAS)
    usd_per_hour: Usd = Field(description="of one replica", examples=["12.00"])
    starts_at: Moment
    ends_at: Moment
    reason: Name = "commitment"


NewCommitment = Annotated[NewSpend | NewReservation, Field(discriminator="kind")]


class CommitmentOut(BaseModel):
    """A commitment. Up to `reckoned_until`, `due_usd` of it has fallen due for not being used;
    `unpaid_usd` of that is not collected yet. `used_usd` is of reserved replicas."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    kind: Literal["spend", "reserved"]
    usd_per_month: str | None
    configuration: str | None
    replicas: int | None
    usd_per_hour: str | None
    starts_at: datetime
    ends_at: datetime | None
    reckoned_until: datetime
    used_usd: str
    used_p: str
    due_usd: str
    due_p: str
    unpaid_usd: str
    unpaid_p: str
    reason: str
    author: str
    created_at: datetime

    @classmethod
    def of(cls, row: Commitment, unpaid_p: int) -> Self:
        columns = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        told = {
            "usd_per_month": None if row.p_per_month is None else p_to_usd(row.p_per_month),
            "usd_per_hour": None if row.rate_p_per_hour is None else p_to_usd(row.rate_p_per_hour),
            "reckoned_until": row.due_until,
            "used_usd": p_to_usd(row.used_p),
            "used_p": str(row.used_p),
            "due_usd": p_to_usd(row.due_p),
            "due_p": str(row.due_p),
            "unpaid_usd": p_to_usd(unpaid_p),
            "unpaid_p": str(unpaid_p),
        }
        return cls(**(columns | told))


@admin_router.post("", status_code=201)
def commit(tenant_id: uuid.UUID, body: NewCommitment, session: Db, admin: Admin) -> CommitmentOut:
    """Commit a tenant to a monthly spend, or reserve replicas for it. It cannot be taken back."""
    if isinstance(body, NewSpend):
        made = promises.promise_spend(
            session,
            tenant_id=tenant_id,
            p_per_month=usd_to_p(body.usd_per_month),
            starts_at=body.starts_at,
            ends_at=body.ends_at,
            reason=body.reason,
            author=admin.name,
        )
    else:
        made = promises.reserve(
            session,
            tenant_id=tenant_id,
            configuration=body.configuration,
            replicas=body.replicas,
            rate_p_per_hour=usd_to_p(body.usd_per_hour),
            starts_at=body.starts_at,
            ends_at=body.ends_at,
            reason=body.reason,
            author=admin.name,
        )
    return CommitmentOut.of(made, 0)


@admin_router.get("")
def list_commitments(
    tenant_id: uuid.UUID, session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[CommitmentOut]:
    """List a tenant's commitments in the order they were made, past ones too."""
    return _listed(session, tenant_id, after, limit)


@tenant_router.get("")
def list_own_commitments(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 100
) -> Page[CommitmentOut]:
    """List the account's commitments in the order they were made, past ones too."""
    return _listed(session, tenant.tenant_id, after, limit)


def _listed(
    session: Session, tenant_id: uuid.UUID, after: uuid.UUID | None, limit: int
) -> Page[CommitmentOut]:
    found = promises.listing(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(
        found,
        limit,
        show=lambda row: CommitmentOut.of(row, promises.unpaid_p(session, row)),
        cursor=lambda row: row.id,
    )
