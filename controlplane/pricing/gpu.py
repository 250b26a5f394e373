"""The price book of GPU time: publishing versions and looking them up.

A version is immutable; a new price is a new version from a moment on. A replica's rate is pinned
when its life begins, so a new price never changes what already runs. Called by billing, deployments
and the REST API.
"""

import uuid
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.db import uuid7
from controlplane.errors import Conflict, UnprocessableRequest
from controlplane.money import P_PER_USD
from controlplane.pricing.models import GpuPriceVersion

GpuPriceKind = Literal["on_demand", "spot"]

# 10,000 USD an hour; keeps the price of a long tick inside one ledger entry.
MAX_RATE_P_PER_HOUR = 10_000 * P_PER_USD


def kind_of(*, spot: bool) -> GpuPriceKind:
    """Return the name of a rate."""
    return "spot" if spot else "on_demand"


def publish(
    session: Session,
    *,
    configuration: str,
    kind: GpuPriceKind,
    rate_p_per_hour: int,
    effective_from: datetime | None = None,
) -> GpuPriceVersion:
    """Add a version; `effective_from` None means from now on.

    Raises:
        UnprocessableRequest: the rate is out of its range.
        Conflict: another version of this configuration and kind starts at the same moment.
    """
    if not 0 <= rate_p_per_hour <= MAX_RATE_P_PER_HOUR:
        raise UnprocessableRequest("A rate must be from 0 to 10,000 USD per hour.")
    version: GpuPriceVersion | None = session.scalar(
        insert(GpuPriceVersion)
        .values(
            id=uuid7(),
            configuration=configuration,
            kind=kind,
            rate_p_per_hour=rate_p_per_hour,
            effective_from=effective_from or datetime.now(UTC),
        )
        .on_conflict_do_nothing(index_elements=["configuration", "kind", "effective_from"])
        .returning(GpuPriceVersion)
    )
    if version is None:
        raise Conflict(f"{configuration} already has a price ({kind}) from {effective_from}.")
    return version


def rate_p_per_hour(
    session: Session, *, configuration: str, spot: bool, at: datetime
) -> int | None:
    """Return p$ per hour of the version in force at `at`, None when there is none."""
    return session.scalar(
        select(GpuPriceVersion.rate_p_per_hour)
        .where(
            GpuPriceVersion.configuration == configuration,
            GpuPriceVersion.kind == kind_of(spot=spot),
            GpuPriceVersion.effective_from <= at,
        )
        .order_by(GpuPriceVersion.effective_from.desc())
        .limit(1)
    )


def rates_p_per_hour(session: Session, at: datetime) -> dict[tuple[str, str], int]:
    """Return the rates in force at `at` by (configuration, kind)."""
    found = session.scalars(
        select(GpuPriceVersion)
        .where(GpuPriceVersion.effective_from <= at)
        .order_by(GpuPriceVersion.effective_from)
    )
    return {(it.configuration, it.kind): it.rate_p_per_hour for it in found}


def listing(
    session: Session, *, after: uuid.UUID | None = None, limit: int | None = None
) -> list[GpuPriceVersion]:
    """Return versions in the order they were published, those after the id `after`."""
    query = select(GpuPriceVersion).order_by(GpuPriceVersion.id).limit(limit)
    if after is not None:
        query = query.where(GpuPriceVersion.id > after)
    return list(session.scalars(query))
