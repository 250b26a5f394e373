"""Makes the cluster say what the rows say, and the rows tell what the cluster answers.

Called every second or two by `jobs`, or by the process that keeps the local cluster. Both functions
compare everything with everything, so they need no memory: a cluster that lost an object, or began
anew, gets it again, and where nothing differs nothing is written on either side. One caller works
at a time, whoever it is; the others do nothing.
"""

import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import Select, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.cluster import (
    NAMESPACES,
    Cluster,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Resource,
    Unreachable,
)
from controlplane.crd.base import TENANT_LABEL, Path
from controlplane.db import uuid7
from controlplane.deployments import objects, standing
from controlplane.deployments.catalogue import observe_catalogue
from controlplane.deployments.models import Deployment
from controlplane.deployments.objects import MANAGER, Key, Seen
from controlplane.tenants.models import Tenant

_log = logging.getLogger(__name__)

_LOCK_KEY = 0x70726F6A  # any number of our own: "proj"
_REFUSED_AGAIN = timedelta(seconds=30)
_UNANSWERED = 5  # rows in a pass; each may have taken a time-out
# A row's own spec may be one that this version of the types no longer takes.
_REFUSALS = (Invalid, Forbidden, Conflict, NotFound, ValidationError)


class _Taken(Exception):
    """An object of this name is there that this row did not make."""


def project(session: Session, cluster: Cluster, *, limit: int = 200) -> int:
    """Write at most `limit` rows to the cluster; return how many writes there were.

    What the cluster refuses is kept in the row, shown by the API, and tried again now and then. So
    is what gets no answer while others do.

    Raises:
        ClusterError: the cluster cannot be reached; roll back and call again later.
    """
    if not _only_one(session):
        return 0
    found = objects.all_of(cluster)
    suspended = set(session.scalars(select(Tenant.id).where(Tenant.status == "suspended")))
    writes = _end_left_over(session, cluster, found)
    unanswered: list[tuple[Deployment, Unreachable]] = []
    for row in session.scalars(_wanted(datetime.now(UTC))).all():
        if writes >= limit or len(unanswered) >= _UNANSWERED:
            break
        seen = found[objects.kind_of(row).resource].get((row.namespace, row.name))
        is_suspended = row.tenant_id in suspended
        if _is_settled(row, seen, is_suspended):
            continue
        try:
            writes += _settle(session, cluster, row.id, seen, is_suspended)
        except Unreachable as error:
            unanswered.append((row, error))
    if unanswered and not writes:
        raise unanswered[0][1]
    # The server answers others, so it is about these rows: they must not keep others waiting.
    for row, silence in unanswered:
        _refuse(row, str(silence))
    session.flush()
    return writes + standing.tell(session, cluster)


def observe(session: Session, cluster: Cluster, *, catalogue_namespace: str = "flashplane") -> int:
    """Copy what the cluster says into the rows; return how many rows changed.

    Objects written by hand get rows of their own, which only show. The catalogue and its stock are
    copied too.

    Raises:
        ClusterError: the cluster cannot be read; roll back and call again later.
    """
    if not _only_one(session):
        return 0
    found = [seen for kind in objects.all_of(cluster).values() for seen in kind.values()]
    rows = session.scalars(select(Deployment).where(Deployment.state != "deleted")).all()
    row_of = {(row.namespace, row.name): row for row in rows}
    tenants = {str(tenant_id) for tenant_id in session.scalars(select(Tenant.id))}
    changed = observe_catalogue(session, cluster, catalogue_namespace)
    external: set[Key] = set()
    for seen in found:
        row = row_of.get(seen.key)
        if row is not None and row.managed == "row":
            changed += _copy(row, seen) if seen.row_id == row.id else 0
        elif seen.path in list(Path) and seen.key not in external:
            external.add(seen.key)
            changed += _show(session, row, seen, tenants)
    for row in rows:
        if row.managed == "external" and (row.namespace, row.name) not in external:
            row.state, row.deleted_at = "deleted", datetime.now(UTC)
            changed += 1
    session.flush()
    return changed


def _only_one(session: Session) -> bool:
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK_KEY))))


def _wanted(now: datetime) -> Select[Deployment]:
    return (
        select(Deployment)
        .where(
            Deployment.managed == "row",
            Deployment.state != "deleted",
            or_(Deployment.refused_at.is_(None), Deployment.refused_at < now - _REFUSED_AGAIN),
        )
        .order_by(Deployment.id)
    )


def _is_settled(row: Deployment, seen: Seen | None, suspended: bool) -> bool:
    """Return whether there is nothing to do, which is so for nearly all rows."""
    if seen is None or row.refusal is not None:
        return False
    return seen.deleting if row.state == "deleting" else seen.shows(row, suspended=suspended)


def _settle(
    session: Session, cluster: Cluster, row_id: uuid.UUID, seen: Seen | None, suspended: bool
) -> int:
    # Read again under the row's lock, so that an older generation never overwrites a newer one.
    lock = {"skip_locked": True, "key_share": True}
    row = session.get(Deployment, row_id, with_for_update=lock, populate_existing=True)
    if row is None:
        return 0
    try:
        if row.state == "deleting":
            return _end(cluster, row, seen)
        return _make(cluster, row, seen, suspended)
    except (_Taken, *_REFUSALS) as refusal:
        _refuse(row, str(refusal))
        return 0


def _end_left_over(
    session: Session, cluster: Cluster, found: Mapping[Resource, Mapping[Key, Seen]]
) -> int:
    """Delete objects of deleted rows: a write that timed out may have been done after all."""
    ours = {
        seen.row_id: seen
        for kind in found.values()
        for seen in kind.values()
        if seen.row_id is not None
    }
    deleted = select(Deployment.id).where(Deployment.id.in_(ours), Deployment.state == "deleted")
    left_over = [ours[row_id] for row_id in session.scalars(deleted)]
    return sum(_delete(cluster, seen) for seen in left_over if not seen.deleting)


def _delete(cluster: Cluster, seen: Seen) -> int:
    namespace, name = seen.key
    try:
        cluster.delete(seen.kind.resource, name, namespace=namespace, uid=seen.uid)
    except NotFound:
        return 0
    return 1


def _make(cluster: Cluster, row: Deployment, seen: Seen | None, suspended: bool) -> int:
    if seen is not None and seen.row_id != row.id and not seen.deleting:
        raise _Taken(f"{row.namespace}/{row.name} was written into the cluster by hand.")
    if seen is not None and (seen.deleting or seen.shows(row, suspended=suspended)):
        _accept(row)
        return 0
    if row.tenant_id is not None:
        _ensure_namespace(cluster, row.namespace, str(row.tenant_id))
    body = objects.body_of(row, suspended=suspended)
    cluster.apply(objects.kind_of(row).resource, body, manager=MANAGER)
    _accept(row)
    return 1


def _ensure_namespace(cluster: Cluster, namespace: str, tenant: str) -> None:
    try:
        metadata = cluster.get(NAMESPACES, namespace)["metadata"]
    except NotFound:
        metadata = {}
    if (metadata.get("labels") or {}).get(TENANT_LABEL) == tenant:
        return
    body = {
        "apiVersion": NAMESPACES.api_version,
        "kind": NAMESPACES.kind,
        "metadata": {"name": namespace, "labels": {TENANT_LABEL: tenant}},
    }
    cluster.apply(NAMESPACES, body, manager=MANAGER)


def _end(cluster: Cluster, row: Deployment, seen: Seen | None) -> int:
    if seen is None or seen.row_id != row.id:
        row.state, row.deleted_at = "deleted", datetime.now(UTC)
        return 0
    if seen.deleting:
        return 0
    return _delete(cluster, seen)


def _accept(row: Deployment) -> None:
    if row.refusal is not None:
        row.refusal = row.refused_at = None


def _refuse(row: Deployment, message: str) -> None:
    _log.warning(
        "deployment_refused_by_cluster", extra={"deployment": str(row.id), "reason": message[:500]}
    )
    row.refusal, row.refused_at = message[:1000], datetime.now(UTC)


def _copy(row: Deployment, seen: Seen) -> int:
    generation = row.observed_generation
    if seen.status_is_current:
        generation = min(seen.row_generation, row.generation)
    if (row.status, row.observed_generation) == (seen.status, generation):
        return 0
    row.status, row.observed_generation = seen.status, generation
    return 1


def _show(session: Session, row: Deployment | None, seen: Seen, tenants: set[str]) -> int:
    """Keep the row of an object that was written by hand."""
    metadata, spec = seen.body["metadata"], objects.storable(seen.body["spec"])
    tenant = spec.get("tenant", "")
    shown = {
        "tenant_id": uuid.UUID(tenant) if tenant in tenants else None,
        "path": seen.path,
        "spec": spec,
        "generation": metadata.get("generation", 1),
        "status": seen.status,
        "observed_generation": seen.status.get("observedGeneration", 0),
    }
    if row is None:
        namespace, name = seen.key
        added = insert(Deployment).values(
            id=uuid7(),
            namespace=namespace,
            name=name,
            managed="external",
            state="active",
            out_of_funds=False,
            **shown,
        )
        session.execute(added.on_conflict_do_nothing())
        return 1
    if all(getattr(row, name) == value for name, value in shown.items()):
        return 0
    for name, value in shown.items():
        setattr(row, name, value)
    return 1
