"""Tells the operator in which namespaces nothing may run now, and people why. Called by
`projection` and the REST API.

A row whose tenant has no money, or is suspended, is projected as stopped. Objects written by hand
are never changed, so their namespace says it: by a label, which is there while it is so, and which
the operator reads as a stop of all that is there. It is written only where it differs.
"""

import logging
import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.cluster import NAMESPACES, Cluster, Conflict, Forbidden, Invalid, NotFound
from controlplane.crd.base import SUSPENDED_LABEL, TENANT_LABEL, Suspension
from controlplane.deployments import objects
from controlplane.deployments.models import Deployment, FundState
from controlplane.tenants.models import Tenant

_log = logging.getLogger(__name__)


def tell(session: Session, cluster: Cluster) -> int:
    """Label the namespaces of hand-written objects whose tenants may run nothing, and take the
    label off all others; return how many changed.

    Raises:
        ClusterError: the cluster cannot be reached; call again later.
    """
    labelled = {
        it["metadata"]["name"]: it["metadata"]["labels"][SUSPENDED_LABEL]
        for it in objects.pages(cluster, NAMESPACES, labels=SUSPENDED_LABEL)
    }
    wanted = _wanted(session)
    changed = 0
    for name, (tenant_id, why) in sorted(wanted.items()):
        if labelled.get(name) != why and _is_of(cluster, name, tenant_id):
            changed += _label(cluster, name, why)
    for name in sorted(labelled.keys() - wanted.keys()):
        changed += _label(cluster, name, None)
    return changed


def why_stopped(session: Session, rows: Sequence[Deployment]) -> dict[uuid.UUID, Suspension]:
    """Return by id why deployments are stopped whatever their specs say; the others are left out.

    Who writes an object by hand is not asked for money before: there the funds' end is the stop.
    """
    found = session.execute(
        select(Deployment.id, Tenant.status)
        .join(Tenant, Tenant.id == Deployment.tenant_id)
        .outerjoin(FundState, FundState.tenant_id == Tenant.id)
        .where(
            Deployment.id.in_([row.id for row in rows]),
            (Tenant.status == "suspended")
            | Deployment.out_of_funds
            | ((Deployment.managed == "external") & (FundState.level == "empty")),
        )
    )
    return {row_id: _why(status) for row_id, status in found}


def _why(status: str) -> Suspension:
    return Suspension.TENANT if status == "suspended" else Suspension.FUNDS


def _wanted(session: Session) -> dict[str, tuple[uuid.UUID, Suspension]]:
    """Return whose nothing may run in which namespaces, and why."""
    # Funds that are empty stay so until money comes in: what was stopped costs nothing any more.
    found = session.execute(
        select(Deployment.namespace, Tenant.id, Tenant.status)
        .join(Tenant, Tenant.id == Deployment.tenant_id)
        .outerjoin(FundState, FundState.tenant_id == Tenant.id)
        .where(
            Deployment.managed == "external",
            Deployment.state != "deleted",
            (Tenant.status == "suspended") | (FundState.level == "empty"),
        )
    )
    return {namespace: (tenant_id, _why(status)) for namespace, tenant_id, status in found}


def _is_of(cluster: Cluster, name: str, tenant_id: uuid.UUID) -> bool:
    try:
        labels = cluster.get(NAMESPACES, name)["metadata"].get("labels") or {}
    except (NotFound, Forbidden):
        return False
    return bool(labels.get(TENANT_LABEL) == str(tenant_id))


def _label(cluster: Cluster, name: str, why: Suspension | None) -> int:
    change = {"metadata": {"labels": {SUSPENDED_LABEL: why if why is None else str(why)}}}
    try:
        cluster.patch(NAMESPACES, name, change)
    except (NotFound, Forbidden, Conflict, Invalid) as refusal:
        _log.warning("namespace_not_labelled", extra={"namespace": name, "reason": str(refusal)})
        return 0
    return 1
