"""Makes commitments and lists them. Called by the REST API."""

import uuid
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.billing.commitments import reckoning
from controlplane.deployments.commitments import Commitment, CommitmentDue
from controlplane.errors import UnprocessableRequest
from controlplane.money import P_PER_USD
from controlplane.pricing.gpu import MAX_RATE_P_PER_HOUR
from controlplane.tenants import tenants

# A million USD; keeps a month's due inside one ledger entry.
MAX_P_PER_MONTH = 10**6 * P_PER_USD
MAX_REPLICAS = 1000


def promise_spend(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    p_per_month: int,
    starts_at: datetime,
    ends_at: datetime | None,
    reason: str,
    author: str,
) -> Commitment:
    """Commit a tenant to a spend in each calendar month; both moments are months' first, in UTC.

    Raises:
        NotFound: no such tenant.
        UnprocessableRequest: an absurd amount, no whole months, or a month that has begun already
            and is not the present one.
    """
    tenants.get(session, tenant_id=tenant_id)
    if not 0 < p_per_month <= MAX_P_PER_MONTH:
        raise UnprocessableRequest(
            "A month's spend must be above 0 and at most 1,000,000 USD.", param="usd_per_month"
        )
    for name, at in (("starts_at", starts_at), ("ends_at", ends_at)):
        if at is not None and at != _month(at):
            raise UnprocessableRequest(
                f"{name} must be the first moment of a month in UTC.", param=name
            )
    if starts_at < _month(datetime.now(UTC)):
        raise UnprocessableRequest("Past months cannot be committed to.", param="starts_at")
    _check_forward(starts_at, ends_at)
    return _add(
        session,
        Commitment(
            tenant_id=tenant_id,
            kind="spend",
            p_per_month=p_per_month,
            starts_at=starts_at,
            ends_at=ends_at,
            reason=reason,
            author=author,
        ),
    )


def reserve(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    configuration: str,
    replicas: int,
    rate_p_per_hour: int,
    starts_at: datetime,
    ends_at: datetime,
    reason: str,
    author: str,
) -> Commitment:
    """Reserve on-demand replicas for a term at a rate of their own, which is due used or not.

    Raises:
        NotFound: no such tenant.
        UnprocessableRequest: an absurd rate or number, or a term that is past or backwards.
    """
    tenants.get(session, tenant_id=tenant_id)
    if not 0 < rate_p_per_hour <= MAX_RATE_P_PER_HOUR:
        raise UnprocessableRequest(
            "A rate must be above 0 and at most 10,000 USD per hour.", param="usd_per_hour"
        )
    if not 0 < replicas <= MAX_REPLICAS:
        raise UnprocessableRequest("From 1 to 1,000 replicas are reserved.", param="replicas")
    if starts_at < datetime.now(UTC) - reckoning.GRACE:
        raise UnprocessableRequest("Past time cannot be reserved.", param="starts_at")
    _check_forward(starts_at, ends_at)
    return _add(
        session,
        Commitment(
            tenant_id=tenant_id,
            kind="reserved",
            configuration=configuration,
            replicas=replicas,
            rate_p_per_hour=rate_p_per_hour,
            starts_at=starts_at,
            ends_at=ends_at,
            reason=reason,
            author=author,
        ),
    )


def listing(
    session: Session, *, tenant_id: uuid.UUID, after: uuid.UUID | None = None, limit: int = 100
) -> list[Commitment]:
    """Return a tenant's commitments in the order they were made, past ones too.

    Raises:
        NotFound: no such tenant.
    """
    tenants.get(session, tenant_id=tenant_id)
    query = (
        select(Commitment)
        .where(Commitment.tenant_id == tenant_id)
        .order_by(Commitment.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(Commitment.id > after)
    return list(session.scalars(query))


def unpaid_p(session: Session, commitment: Commitment) -> int:
    """Return what fell due of a commitment and is not collected yet, in p$."""
    open_dues = session.scalars(
        select(CommitmentDue.due_p - CommitmentDue.paid_p).where(
            CommitmentDue.commitment_id == commitment.id, CommitmentDue.paid_p < CommitmentDue.due_p
        )
    )
    return sum(int(left_p) for left_p in open_dues)


def _add(session: Session, commitment: Commitment) -> Commitment:
    commitment.due_until = commitment.starts_at
    session.add(commitment)
    session.flush()
    session.refresh(commitment)
    return commitment


def _check_forward(starts_at: datetime, ends_at: datetime | None) -> None:
    if ends_at is not None and ends_at <= starts_at:
        raise UnprocessableRequest("ends_at must come after starts_at.", param="ends_at")


def _month(moment: datetime) -> datetime:
    at = moment.astimezone(UTC)
    return datetime(at.year, at.month, 1, tzinfo=UTC)
