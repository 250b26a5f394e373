"""The price book: publishing versions, and a snapshot to look prices up in.

A version is immutable; a new price is a new version from a moment on. The gateway refreshes its
snapshot off the request path and pins the version in the hold. Called by gateway and REST API.
"""

import bisect
import uuid
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.db import uuid7
from controlplane.errors import Conflict, ModelNotFound, UnprocessableRequest
from controlplane.pricing.models import PriceVersion
from controlplane.pricing.rating import Price

SERVERLESS: Final = "serverless"
DEDICATED: Final = "dedicated"
# The model of a price that holds for every model of the dedicated path without one of its own.
ANY_MODEL: Final = "*"
# 10,000 USD per million tokens; keeps the price of the largest request inside one ledger entry.
MAX_RATE_P = 10**10


class PriceBook:
    """All versions at the moment it was read. Lookups are pure."""

    def __init__(self, versions: list[tuple[datetime, Price]]) -> None:
        self._versions: dict[tuple[str, str], list[tuple[datetime, Price]]] = {}
        for effective_from, price in sorted(versions, key=lambda version: version[0]):
            self._versions.setdefault((price.model, price.path), []).append((effective_from, price))

    def price(self, model: str, path: str, at: datetime) -> Price:
        """Return the price in force at `at`; on the dedicated path, that of `ANY_MODEL` at least.

        Raises:
            ModelNotFound: the model has no price on this path then.
        """
        versions = self._versions.get((model, path), [])
        if not versions and path == DEDICATED:
            versions = self._versions.get((ANY_MODEL, path), [])
        index = bisect.bisect_right(versions, at, key=lambda version: version[0])
        if index == 0:
            raise ModelNotFound(f"The model {model!r} does not exist.", param="model")
        return versions[index - 1][1]

    def models(self, path: str, at: datetime) -> list[str]:
        """Return the names of the models that have a price on `path` at `at`, sorted."""
        return sorted(
            model
            for (model, on_path), versions in self._versions.items()
            if on_path == path and versions[0][0] <= at
        )


def publish(
    session: Session,
    *,
    model: str,
    hit_rate_p: int,
    miss_rate_p: int,
    output_rate_p: int,
    path: str = SERVERLESS,
    effective_from: datetime | None = None,
) -> PriceVersion:
    """Add a version. Rates are p$ per token; `effective_from` None means from now on.

    Raises:
        UnprocessableRequest: a rate out of its range, or a hit dearer than a miss.
        Conflict: another version of this model and path starts at the same moment.
    """
    if not all(0 <= rate <= MAX_RATE_P for rate in (hit_rate_p, miss_rate_p, output_rate_p)):
        raise UnprocessableRequest("A rate must be from 0 to 10,000 USD per million tokens.")
    if hit_rate_p > miss_rate_p:
        raise UnprocessableRequest("A cache hit must not cost more than a cache miss.")
    statement = (
        insert(PriceVersion)
        .values(
            id=uuid7(),
            model=model,
            path=path,
            hit_rate_p=hit_rate_p,
            miss_rate_p=miss_rate_p,
            output_rate_p=output_rate_p,
            effective_from=effective_from or datetime.now(UTC),
        )
        .on_conflict_do_nothing(index_elements=["model", "path", "effective_from"])
        .returning(PriceVersion)
    )
    version = session.scalar(statement)
    if version is None:
        raise Conflict(f"{model} already has a price on {path} from {effective_from}.")
    return version


def listing(
    session: Session, *, after: uuid.UUID | None = None, limit: int | None = None
) -> list[PriceVersion]:
    """Return versions in the order they were published, those after the id `after`."""
    query = select(PriceVersion).order_by(PriceVersion.id).limit(limit)
    if after is not None:
        query = query.where(PriceVersion.id > after)
    return list(session.scalars(query))


def current(session: Session) -> PriceBook:
    """Return a snapshot of all versions."""
    return PriceBook([(row.effective_from, as_price(row)) for row in listing(session)])


def as_price(row: PriceVersion) -> Price:
    """Return the pure price of a row."""
    return Price(
        version_id=row.id,
        model=row.model,
        path=row.path,
        hit_rate_p=row.hit_rate_p,
        miss_rate_p=row.miss_rate_p,
        output_rate_p=row.output_rate_p,
    )
