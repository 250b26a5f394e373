"""The price book in the database: publishing versions and reading them.

A version is immutable; a new price is a new version from a moment on. The gateway refreshes its
snapshot off the request path and pins version and band in the hold. Called by gateway, billing and
REST API.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Row, false, func, or_, select, tuple_
from sqlalchemy.orm import Session

from controlplane.db import uuid7
from controlplane.errors import Conflict, UnprocessableRequest
from controlplane.pricing import calendars, drafts
from controlplane.pricing.drafts import SERVERLESS, Draft, Rates
from controlplane.pricing.models import PriceRate, PriceVersion
from controlplane.pricing.rating import STANDARD, Price
from controlplane.pricing.snapshot import Key, PriceBook, Version

# How far the clocks of an admin and of this process may be apart.
CLOCK_SKEW = timedelta(minutes=1)
_LOCK_KEY = 0x70726963  # the database takes the same one before it gives a position


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
    """Publish a price that is the same at every hour and for all; see `publish_all`."""
    rates = {STANDARD: Rates(hit_rate_p, miss_rate_p, output_rate_p)}
    draft = Draft(model=model, path=path, rates=rates, effective_from=effective_from)
    return publish_all(session, [draft])[0]


def publish_all(
    session: Session, wanted: Sequence[Draft], *, keep_known: bool = False
) -> list[PriceVersion]:
    """Add versions, all or none; with `keep_known` one that is there already is left as it is.

    Nothing is published into the past, where requests have been charged, unless it is the first
    history of its model, path and tenant: those of one call may be a whole history.

    Raises:
        UnprocessableRequest: see `drafts.check`; or a version would begin in the past, or end a
            tenant's own price that there is not.
        Conflict: another version of this model, path and tenant begins at the same moment.
    """
    for draft in wanted:
        drafts.check(draft)
    session.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
    now = datetime.now(UTC)
    known = _known(session, {draft.key for draft in wanted})
    old_keys = {key for key, _ in known}
    published = []
    for draft in wanted:
        moment = draft.effective_from or now
        same = known.get((draft.key, moment))
        if same is None:
            _check_moment(draft, moment, now, is_first=draft.key not in old_keys)
            same = _added(session, draft, moment)
            known[draft.key, moment] = same
        elif not (keep_known and _says(same) == (dict(draft.rates), _calendar_id(draft))):
            raise Conflict(
                f"{draft.model} already has a price on {draft.path} from {moment.isoformat()}.",
                param="effective_from",
            )
        published.append(same)
    session.flush()
    return published


def listing(
    session: Session,
    *,
    after: uuid.UUID | None = None,
    limit: int | None = None,
    model: str | None = None,
    path: str | None = None,
    tenant_id: uuid.UUID | None = None,
) -> list[PriceVersion]:
    """Return versions in the order they were published, those after the id `after`.

    With a `tenant_id`, the tenant's own.
    """
    query = select(PriceVersion).order_by(PriceVersion.position).limit(limit)
    if after is not None:
        seen = select(PriceVersion.position).where(PriceVersion.id == after).scalar_subquery()
        query = query.where(PriceVersion.position > seen)
    if model is not None:
        query = query.where(PriceVersion.model == model)
    if path is not None:
        query = query.where(PriceVersion.path == path)
    if tenant_id is not None:
        query = query.where(PriceVersion.tenant_id == tenant_id)
    return list(session.scalars(query))


def current(session: Session) -> PriceBook:
    """Return a snapshot of all versions."""
    return refreshed(session, PriceBook())


def current_for(session: Session, tenant_id: uuid.UUID | None) -> PriceBook:
    """Return a snapshot of the versions that concern one tenant; None: of those for all."""
    whose = or_(PriceVersion.tenant_id.is_(None), PriceVersion.tenant_id == tenant_id)
    return PriceBook(_versions(session, whose))


def refreshed(session: Session, known: PriceBook) -> PriceBook:
    """Return `known` with what was published since; itself when nothing was."""
    new = _versions(session, PriceVersion.position > known.position)
    return known.extended(new) if new else known


def pinned(
    session: Session, pins: Collection[tuple[uuid.UUID, str]]
) -> dict[tuple[uuid.UUID, str], Price]:
    """Return the prices that (version, band) pairs of holds and usage stand for."""
    rows = session.execute(
        select(PriceVersion.model, PriceVersion.path, PriceRate)
        .join(PriceRate, PriceRate.version_id == PriceVersion.id)
        .where(tuple_(PriceRate.version_id, PriceRate.band).in_(pins))
    )
    return {(rate.version_id, rate.band): _price(model, path, rate) for model, path, rate in rows}


def as_price(version: PriceVersion, band: str = STANDARD) -> Price:
    """Return the pure price of one band of a version."""
    (rate,) = (rate for rate in version.rates if rate.band == band)
    return _price(version.model, version.path, rate)


def _price(model: str, path: str, rate: PriceRate | Row[*tuple[Any, ...]]) -> Price:
    return Price(
        version_id=rate.version_id,
        model=model,
        path=path,
        hit_rate_p=rate.hit_rate_p,
        miss_rate_p=rate.miss_rate_p,
        output_rate_p=rate.output_rate_p,
        band=rate.band,
        request_rate_p=rate.request_rate_p,
    )


def _known(session: Session, keys: Collection[Key]) -> dict[tuple[Key, datetime], PriceVersion]:
    of_keys = (
        PriceVersion.tenant_id.is_not_distinct_from(tenant_id)
        & (PriceVersion.model == model)
        & (PriceVersion.path == path)
        for tenant_id, model, path in keys
    )
    versions = session.scalars(select(PriceVersion).where(or_(false(), *of_keys)))
    return {((it.tenant_id, it.model, it.path), it.effective_from): it for it in versions}


def _check_moment(draft: Draft, moment: datetime, now: datetime, *, is_first: bool) -> None:
    if is_first and not draft.rates:
        raise UnprocessableRequest(
            f"This tenant has no price of its own for {draft.model} on {draft.path}.",
            param="ends_override",
        )
    if moment < now - CLOCK_SKEW and not is_first:
        raise UnprocessableRequest(
            "A price cannot begin in the past: what was charged then would not be what the book"
            " says. Only the first price of a model may.",
            param="effective_from",
        )


def _added(session: Session, draft: Draft, moment: datetime) -> PriceVersion:
    version = PriceVersion(
        id=uuid7(),
        model=draft.model,
        path=draft.path,
        tenant_id=draft.tenant_id,
        calendar_id=_calendar_id(draft),
        effective_from=moment,
        rates=[
            PriceRate(
                band=band,
                hit_rate_p=rates.hit_p,
                miss_rate_p=rates.miss_p,
                output_rate_p=rates.output_p,
                request_rate_p=rates.request_p,
            )
            for band, rates in sorted(draft.rates.items())
        ],
    )
    session.add(version)
    # One at a time: positions are the order of the call.
    session.flush()
    return version


def _calendar_id(draft: Draft) -> uuid.UUID | None:
    return draft.calendar.id if draft.calendar else None


def _says(version: PriceVersion) -> tuple[dict[str, Rates], uuid.UUID | None]:
    rates = {
        it.band: Rates(it.hit_rate_p, it.miss_rate_p, it.output_rate_p, it.request_rate_p)
        for it in version.rates
    }
    return rates, version.calendar_id


def _versions(session: Session, which: ColumnElement[bool]) -> list[Version]:
    rows = session.execute(
        select(
            PriceVersion.id,
            PriceVersion.position,
            PriceVersion.tenant_id,
            PriceVersion.model,
            PriceVersion.path,
            PriceVersion.effective_from,
            PriceVersion.calendar_id,
            PriceRate.version_id,
            PriceRate.band,
            PriceRate.hit_rate_p,
            PriceRate.miss_rate_p,
            PriceRate.output_rate_p,
            PriceRate.request_rate_p,
        )
        .outerjoin(PriceRate, PriceRate.version_id == PriceVersion.id)
        .where(which)
        .order_by(PriceVersion.position)
    ).all()
    calendar_ids = {row.calendar_id for row in rows if row.calendar_id is not None}
    calendar_of = calendars.by_id(session, calendar_ids)
    found = []
    for _, group in groupby(rows, key=lambda row: row.position):
        bands = list(group)
        row = bands[0]
        found.append(
            Version(
                id=row.id,
                position=row.position,
                key=(row.tenant_id, row.model, row.path),
                effective_from=row.effective_from,
                calendar=calendar_of[row.calendar_id] if row.calendar_id else None,
                prices={
                    it.band: _price(it.model, it.path, it) for it in bands if it.band is not None
                },
            )
        )
    return found
