"""Adds up a tenant's ledger entries to the lines and sums of one month. Called by `lifecycle`.

The ledger is what counts. Usage and GPU intervals only explain its entries: whose key, which model,
in which month. An entry belongs to the first invoice that saw it and whose month is not before its
own. Writers of an account are one after another, so its entries' ids rise in the order in which
they are committed, and one id says what was seen; the balance at that id proves it.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from controlplane.billing.invoices.amounts import Sums
from controlplane.billing.invoices.models import SECTIONS
from controlplane.tenants.models import ApiKey, Project

# What brings money in, and sells nothing.
FUNDS = ("top_up", "payment", "grant")
_METERS = ("miss", "hit", "output", "request")
# A million entries are sorted and joined in memory, not on disk; ends with the transaction.
_MEMORY = text("SET LOCAL work_mem = '128MB'")
_SEEN = text("""
    SELECT a.id, a.balance_p,
           coalesce((SELECT max(e.id) FROM ledger_entries e WHERE e.account_id = a.id), 0) AS last
    FROM accounts a WHERE a.tenant_id = :tenant_id
""")
# The month of tokens is that of their request, of everything else that of its ledger entry: GPU
# time is charged within minutes. A gateway's clock that is ahead moves nothing into the future.
_ALIKE = text("""
    WITH seen AS (
        SELECT e.id, e.amount_p, e.granted_p, e.token_class, e.tokens, e.rate_p, t.kind,
               date_trunc('month', least(coalesce(u.started_at, t.created_at), t.created_at),
                          'UTC')::date AS month,
               u.api_key_id, u.model, coalesce(u.path, i.path) AS path, u.band,
               i.configuration, i.spot,
               CASE WHEN i.id IS NOT NULL THEN i.deployment
                    WHEN t.kind <> 'charge' OR u.request_id IS NULL THEN t.reason END AS detail,
               t.rate_p_per_hour, t.to_ms - t.from_ms AS ms
        FROM ledger_entries e
        JOIN ledger_transactions t ON t.id = e.transaction_id
        LEFT JOIN usage_events u ON u.request_id = t.request_id
        LEFT JOIN gpu_intervals i ON i.id = t.interval_id
        WHERE e.account_id = :account_id AND e.id BETWEEN :from_id AND :until_id
    )
    SELECT month, kind, api_key_id, model, path, band, token_class, rate_p, configuration, spot,
           rate_p_per_hour, detail, sum(tokens) AS tokens, sum(ms) AS ms,
           sum(amount_p) AS amount_p, sum(granted_p) AS granted_p,
           sum(amount_p) FILTER (WHERE id > :seen_id) AS new_p, min(id) AS first_id
    FROM seen WHERE id > :seen_id OR month > :seen_month
    GROUP BY month, kind, api_key_id, model, path, band, token_class, rate_p, configuration, spot,
             rate_p_per_hour, detail
""")


@dataclass(frozen=True, slots=True)
class Seen:
    """Up to where the invoices before looked: the entry's id, the balance then, their last month,
    and the first entry that they left for later."""

    until_id: int = 0
    balance_p: int = 0
    month: date = date.min
    left_from_id: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line as `InvoiceLine` keeps it, without its place."""

    section: str
    kind: str
    month: date
    late: bool
    meter: str
    amount_p: int
    project_id: uuid.UUID | None = None
    project: str | None = None
    api_key_id: uuid.UUID | None = None
    api_key: str | None = None
    model: str | None = None
    path: str | None = None
    band: str | None = None
    resource: str | None = None
    detail: str | None = None
    quantity: int | None = None
    unit: str | None = None
    rate_p: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a month holds, seen up to `seen`. `drift_p` is zero unless the books are broken."""

    lines: list[Line]
    sums: Sums
    seen: Seen
    drift_p: int


def draft(session: Session, *, tenant_id: uuid.UUID, month: date, before: Seen) -> Draft:
    """Add up everything up to `month` that the invoices before did not. Writes nothing."""
    session.execute(_MEMORY)
    account_id, balance_p, last_id = session.execute(_SEEN, {"tenant_id": tenant_id}).one()
    until_id = max(last_id, before.until_id)
    found = session.execute(
        _ALIKE,
        {
            "account_id": account_id,
            "from_id": min(before.left_from_id, before.until_id + 1),
            "until_id": until_id,
            "seen_id": before.until_id,
            "seen_month": before.month,
        },
    ).all()
    names = _names(session, {row.api_key_id for row in found if row.api_key_id})
    taken = [row for row in found if row.month <= month]
    left = [row.first_id for row in found if row.month > month]
    new_p = sum(int(row.new_p or 0) for row in found)
    return Draft(
        lines=sorted((_line(row, month, names) for row in taken), key=_order),
        sums=_sums(taken),
        seen=Seen(until_id, int(balance_p), month, min(left, default=until_id + 1)),
        drift_p=int(balance_p) - before.balance_p - new_p,
    )


def _sums(rows: Sequence[Row[Any]]) -> Sums:
    sold = [row for row in rows if row.kind not in FUNDS]
    received = [row for row in rows if row.kind in FUNDS]
    return Sums(
        charges_p=-sum(int(row.amount_p) for row in sold),
        granted_p=-sum(int(row.granted_p) for row in sold),
        received_p=sum(int(row.amount_p) for row in received),
        given_p=sum(int(row.granted_p) for row in received),
    )


def _line(row: Row[Any], month: date, names: Mapping[uuid.UUID, Row[Any]]) -> Line:
    name = names.get(row.api_key_id)
    quantity, unit, rate_p = _quantity(row)
    return Line(
        section="funds" if row.kind in FUNDS else "sale",
        kind=row.kind,
        month=row.month,
        late=row.month < month,
        meter=_meter(row),
        amount_p=-int(row.amount_p),
        project_id=name.project_id if name else None,
        project=name.project if name else None,
        api_key_id=row.api_key_id,
        api_key=name.api_key if name else None,
        model=row.model,
        path=row.path,
        band=row.band,
        resource=row.configuration,
        detail=row.detail,
        quantity=quantity,
        unit=unit,
        rate_p=rate_p,
    )


def _meter(row: Row[Any]) -> str:
    if row.token_class is not None:
        return str(row.token_class)
    if row.kind == "gpu_time":
        return "spot" if row.spot else "on_demand"
    return str(row.kind)


def _quantity(row: Row[Any]) -> tuple[int | None, str | None, int | None]:
    if row.token_class is not None:
        unit = "requests" if row.token_class == "request" else "tokens"
        return int(row.tokens), unit, row.rate_p
    if row.ms is not None:
        return int(row.ms), "ms", row.rate_p_per_hour
    return None, None, None


def _order(line: Line) -> tuple[object, ...]:
    """Return the place of a line: the same for the same ledger, whatever the database's plan."""
    meter = _METERS.index(line.meter) if line.meter in _METERS else len(_METERS)
    return (
        SECTIONS.index(line.section),
        line.kind,
        line.project or "",
        line.api_key or "",
        str(line.api_key_id or ""),
        line.model or "",
        line.path or "",
        line.resource or "",
        line.detail or "",
        line.band or "",
        line.month,
        (meter, line.meter),
        line.rate_p or 0,
    )


def _names(session: Session, api_key_ids: set[uuid.UUID]) -> dict[uuid.UUID, Row[Any]]:
    found: Iterable[Row[Any]] = session.execute(
        select(
            ApiKey.id,
            ApiKey.name.label("api_key"),
            ApiKey.project_id,
            Project.name.label("project"),
        )
        .join(Project, Project.id == ApiKey.project_id)
        .where(ApiKey.id.in_(api_key_ids))
    )
    return {row[0]: row for row in found}
