"""The price book of volumes: publishing versions and looking them up.

A version is immutable. A volume's rate is pinned when its proven existence begins, so a new price
never changes what is already there. Called by billing, deployments and the REST API.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.db import uuid7
from controlplane.errors import Conflict, UnprocessableRequest
from controlplane.money import P_PER_USD
from controlplane.pricing.models import StoragePriceVersion

# The price of every class without one of its own, the cluster's default among them.
ANY_CLASS: Final = "*"
# 1 USD; keeps a day of the largest volume inside one ledger entry.
MAX_RATE_P_PER_GIB_HOUR = P_PER_USD


@dataclass(frozen=True, slots=True)
class StorageRate:
    """p$ per GiB and hour, and since when it is so."""

    rate_p_per_gib_hour: int
    effective_from: datetime


def publish(
    session: Session,
    *,
    storage_class: str,
    rate_p_per_gib_hour: int,
    effective_from: datetime | None = None,
) -> StoragePriceVersion:
    """Add a version; `effective_from` None means from now on.

    Raises:
        UnprocessableRequest: the rate is out of its range.
        Conflict: another version of this class starts at the same moment.
    """
    if not 0 <= rate_p_per_gib_hour <= MAX_RATE_P_PER_GIB_HOUR:
        raise UnprocessableRequest("A rate must be from 0 to 1 USD per GiB and hour.")
    version: StoragePriceVersion | None = session.scalar(
        insert(StoragePriceVersion)
        .values(
            id=uuid7(),
            storage_class=storage_class,
            rate_p_per_gib_hour=rate_p_per_gib_hour,
            effective_from=effective_from or datetime.now(UTC),
        )
        .on_conflict_do_nothing(index_elements=["storage_class", "effective_from"])
        .returning(StoragePriceVersion)
    )
    if version is None:
        raise Conflict(f"{storage_class} already has a price from {effective_from}.")
    return version


def rate(session: Session, *, storage_class: str, at: datetime) -> StorageRate | None:
    """Return the price in force at `at`, None when there is none.

    Args:
        session: the transaction.
        storage_class: as ordered; empty, the cluster's default, is priced as `ANY_CLASS`.
        at: the moment.
    """
    query = (
        select(StoragePriceVersion.rate_p_per_gib_hour, StoragePriceVersion.effective_from)
        .where(
            StoragePriceVersion.storage_class.in_({storage_class, ANY_CLASS}),
            StoragePriceVersion.effective_from <= at,
        )
        .order_by(
            (StoragePriceVersion.storage_class == ANY_CLASS),  # its own first
            StoragePriceVersion.effective_from.desc(),
        )
        .limit(1)
    )
    found = session.execute(query).one_or_none()
    return None if found is None else StorageRate(*found)


def rates_p_per_gib_hour(session: Session, at: datetime) -> dict[str, int]:
    """Return the rates in force at `at` by storage class, `ANY_CLASS` among them."""
    found = session.scalars(
        select(StoragePriceVersion)
        .where(StoragePriceVersion.effective_from <= at)
        .order_by(StoragePriceVersion.effective_from)
    )
    return {it.storage_class: it.rate_p_per_gib_hour for it in found}


def listing(
    session: Session, *, after: uuid.UUID | None = None, limit: int | None = None
) -> list[StoragePriceVersion]:
    """Return versions in the order they were published, those after the id `after`."""
    query = select(StoragePriceVersion).order_by(StoragePriceVersion.id).limit(limit)
    if after is not None:
        query = query.where(StoragePriceVersion.id > after)
    return list(session.scalars(query))
