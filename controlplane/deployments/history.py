"""GPU time of deployments, for bills, and what happened to one. Called by the REST API."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from controlplane.deployments.models import Deployment, GpuInterval


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all of a deployment's replicas, past ones too."""

    proven_ms: int
    billed_ms: int
    billed_p: int
    waived_p: int


@dataclass(frozen=True, slots=True)
class Happening:
    """Something the cluster said of a deployment; `at` as the cluster writes moments."""

    at: str
    kind: str
    reason: str
    message: str


def intervals(
    session: Session, deployment: Deployment, *, after: uuid.UUID | None, limit: int
) -> list[GpuInterval]:
    """Return at most `limit` intervals, newest first, those older than the one of id `after`."""
    order = tuple_(GpuInterval.started_at, GpuInterval.id)
    query = (
        select(GpuInterval)
        .where(GpuInterval.deployment_id == deployment.id)
        .order_by(GpuInterval.started_at.desc(), GpuInterval.id.desc())
        .limit(limit)
    )
    if after is not None:
        last = select(GpuInterval.started_at, GpuInterval.id).where(
            GpuInterval.id == after, GpuInterval.deployment_id == deployment.id
        )
        query = query.where(order < last.scalar_subquery())
    return list(session.scalars(query))


def totals(session: Session, deployment: Deployment) -> Totals:
    """Return the sums of a deployment's intervals."""
    sums = (
        func.coalesce(func.sum(column), 0)
        for column in (
            GpuInterval.proven_ms,
            GpuInterval.billed_ms,
            GpuInterval.billed_p,
            GpuInterval.waived_p,
        )
    )
    found = session.execute(select(*sums).where(GpuInterval.deployment_id == deployment.id)).one()
    return Totals(*(int(value) for value in found))


def happenings(deployment: Deployment) -> list[Happening]:
    """Return what its status tells, newest first: conditions that turned, decisions of scaling."""
    status: Mapping[str, Any] = deployment.status
    conditions = [
        Happening(
            it["lastTransitionTime"],
            f"{it['type']}={it['status']}",
            it.get("reason", ""),
            it.get("message", ""),
        )
        for it in status.get("conditions", ())
    ]
    decisions = [
        Happening(it["at"], f"Scaled from {it['from']} to {it['to']}", it["signal"], it["why"])
        for it in status.get("decisions", ())
    ]
    return sorted(conditions + decisions, key=lambda it: it.at, reverse=True)
