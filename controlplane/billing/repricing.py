"""What a price would have made of traffic that was billed at others. Called by the REST API.

Nothing is written. Sums of tokens come from the database by the bands of the new price; rates are
multiplied here, in exact integers.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from controlplane.errors import UnprocessableRequest
from controlplane.pricing import drafts
from controlplane.pricing.calendar import spans
from controlplane.pricing.drafts import Draft
from controlplane.pricing.rating import STANDARD

LONGEST = timedelta(days=100)
# How far a request's id, which tells its time too, may be from its start.
_ID_SLACK = timedelta(days=1)

# Usage that a tenant's own price paid for is not touched by a price for all.
_SUMS = text("""
    SELECT u.tenant_id, u.band AS old_band,
           (CAST(:bands AS text[]))[width_bucket(u.started_at, CAST(:starts AS timestamptz[]))]
               AS new_band,
           count(*) AS requests,
           count(*) FILTER (WHERE u.hit_tokens + u.miss_tokens + u.output_tokens > 0) AS billed,
           sum(u.hit_tokens) AS hit_tokens, sum(u.miss_tokens) AS miss_tokens,
           sum(u.output_tokens) AS output_tokens, sum(u.charge_p) AS old_p
    FROM usage_events AS u JOIN price_versions AS v ON v.id = u.price_version_id
    WHERE u.model = :model AND u.path = :path
      AND u.request_id BETWEEN :first_id AND :last_id
      AND u.started_at >= :begin AND u.started_at < :until
      AND CASE WHEN CAST(:tenant_id AS uuid) IS NULL THEN v.tenant_id IS NULL
               ELSE u.tenant_id = :tenant_id END
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")


@dataclass(frozen=True, slots=True)
class Repriced:
    """Some requests, what they were charged and what they would be.

    `old_p` is what was charged, so it has waivers in it; `new_p` is rates x tokens as billed.
    """

    tenant_id: uuid.UUID
    old_band: str
    new_band: str
    requests: int
    hit_tokens: int
    miss_tokens: int
    output_tokens: int
    old_p: int
    new_p: int

    @property
    def difference_p(self) -> int:
        return self.new_p - self.old_p


def last_month(now: datetime) -> tuple[datetime, datetime]:
    """Return the whole UTC month before the one of `now`."""
    end = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (end - timedelta(days=1)).replace(day=1), end


def reprice(session: Session, draft: Draft, *, begin: datetime, end: datetime) -> list[Repriced]:
    """Reprice the settled requests that began in [begin, end), by tenant and band.

    Those of the draft's model and path: of its tenant; or, for a price for all, of everybody
    without a price of their own then.

    Raises:
        UnprocessableRequest: the draft could not be published (see `drafts.check`) or has no rates,
            or the time is none or longer than `LONGEST`.
    """
    drafts.check(draft)
    if not draft.rates:
        raise UnprocessableRequest("There are no rates to preview.", param="ends_override")
    if not begin < end <= begin + LONGEST:
        raise UnprocessableRequest(
            f"A preview is of at most {LONGEST.days} days that end after they begin.", param="until"
        )
    edges = [(begin, STANDARD)]
    if draft.calendar is not None:
        edges = list(spans(draft.calendar, begin, end))
    rows = session.execute(
        _SUMS,
        {
            "bands": [band for _, band in edges],
            "starts": [moment for moment, _ in edges],
            "model": draft.model,
            "path": draft.path,
            "tenant_id": draft.tenant_id,
            "begin": begin,
            "until": end,
            "first_id": _id_at(begin - _ID_SLACK),
            "last_id": _id_at(end + _ID_SLACK),
        },
    )
    return [_repriced(draft, row) for row in rows]


def _repriced(draft: Draft, row: Row[*tuple[Any, ...]]) -> Repriced:
    rates = draft.rates[row.new_band]
    hit, miss, output = int(row.hit_tokens), int(row.miss_tokens), int(row.output_tokens)
    new_p = hit * rates.hit_p + miss * rates.miss_p + output * rates.output_p
    return Repriced(
        tenant_id=row.tenant_id,
        old_band=row.old_band,
        new_band=row.new_band,
        requests=row.requests,
        hit_tokens=hit,
        miss_tokens=miss,
        output_tokens=output,
        old_p=int(row.old_p),
        new_p=new_p + row.billed * rates.request_p,
    )


def totals(rows: Iterable[Repriced]) -> tuple[int, int, int]:
    """Return (requests, old p$, new p$) of rows."""
    requests = old_p = new_p = 0
    for row in rows:
        requests, old_p, new_p = requests + row.requests, old_p + row.old_p, new_p + row.new_p
    return requests, old_p, new_p


def _id_at(moment: datetime) -> uuid.UUID:
    """Return the least UUIDv7 of a moment."""
    milliseconds = int(moment.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62)
