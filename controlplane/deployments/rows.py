"""Rows of deployments: adding, changing, finding, ending. Called by `orders`, API and billing.

A row says what is wanted; `projection` makes it a custom resource and brings back what the cluster
says. Every change of what is wanted is a new generation.
"""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.crd.base import Path
from controlplane.db import uuid7
from controlplane.deployments.models import Deployment
from controlplane.deployments.specs import Json
from controlplane.errors import Conflict, NotFound


class ExternallyManaged(Conflict):
    """It was written into the cluster by hand, and is changed there."""

    default_code = "externally_managed"


def add(
    session: Session,
    *,
    tenant_id: uuid.UUID | None,
    namespace: str,
    name: str,
    path: str,
    spec: Json,
    idempotency_key: str | None,
) -> Deployment:
    """Add a deployment. The same `idempotency_key` again is the same deployment, not another.

    Raises:
        Conflict: the name is taken, or the key was used for another deployment.
    """
    added: Deployment | None = session.scalar(
        insert(Deployment)
        .values(
            id=uuid7(),
            tenant_id=tenant_id,
            namespace=namespace,
            name=name,
            path=path,
            managed="row",
            state="active",
            spec=spec,
            generation=1,
            out_of_funds=False,
            status={},
            observed_generation=0,
            idempotency_key=idempotency_key,
        )
        .on_conflict_do_nothing()
        .returning(Deployment)
    )
    if added is not None:
        return added
    earlier = with_key(session, tenant_id=tenant_id, idempotency_key=idempotency_key)
    if earlier is None:
        raise Conflict(f"There is a deployment {name!r} already.", param="name")
    same = (earlier.name, earlier.path) == (name, path)
    if not same or (earlier.generation == 1 and earlier.spec != spec):
        raise Conflict("This Idempotency-Key was used for another deployment.")
    return earlier


def with_key(
    session: Session, *, tenant_id: uuid.UUID | None, idempotency_key: str | None
) -> Deployment | None:
    """Return what was added with an Idempotency-Key."""
    if idempotency_key is None:
        return None
    return session.scalar(
        select(Deployment).where(
            Deployment.tenant_id.is_not_distinct_from(tenant_id),
            Deployment.idempotency_key == idempotency_key,
        )
    )


def get(
    session: Session,
    *,
    deployment_id: uuid.UUID,
    tenant_id: uuid.UUID | None,
    to_change: bool = False,
) -> Deployment:
    """Return a deployment, deleted ones too; `tenant_id` None: anybody's.

    Args:
        session: the transaction; locks the row when `to_change`.
        deployment_id: which.
        tenant_id: who asks.
        to_change: it is going to be changed or deleted.

    Raises:
        NotFound: no such deployment, or another tenant's.
        ExternallyManaged: to be changed, but managed in the cluster.
        Conflict: to be changed, but already deleted.
    """
    query = select(Deployment).where(Deployment.id == deployment_id)
    if tenant_id is not None:
        query = query.where(Deployment.tenant_id == tenant_id)
    # Only who owns it may lock it.
    row = session.scalar(query.with_for_update(key_share=True) if to_change else query)
    if row is None:
        raise NotFound(f"There is no deployment {deployment_id}.")
    if to_change and row.managed == "external":
        raise ExternallyManaged(
            f"{row.name} is managed in the cluster: change its {row.namespace}/{row.name} there."
        )
    if to_change and row.state != "active":
        raise Conflict(f"{row.name} is {row.state}.", code="deleting")
    return row


def listing(
    session: Session, *, tenant_id: uuid.UUID | None, after: uuid.UUID | None, limit: int
) -> list[Deployment]:
    """Return at most `limit` that are not deleted, oldest first, those after the id `after`.

    With a `tenant_id`, that tenant's; without, everybody's and the platform's pools.
    """
    query = (
        select(Deployment).where(Deployment.state != "deleted").order_by(Deployment.id).limit(limit)
    )
    if tenant_id is not None:
        query = query.where(Deployment.tenant_id == tenant_id)
    if after is not None:
        query = query.where(Deployment.id > after)
    return list(session.scalars(query))


def running(session: Session, *, tenant_id: uuid.UUID) -> list[Deployment]:
    """Return a tenant's deployments that are neither ending nor out of funds."""
    query = select(Deployment).where(
        Deployment.tenant_id == tenant_id,
        Deployment.managed == "row",
        Deployment.state == "active",
        Deployment.out_of_funds.is_(False),
    )
    return list(session.scalars(query))


def change(session: Session, row: Deployment, *, spec: Json, out_of_funds: bool) -> Deployment:
    """Give a locked row another spec; the same one again changes nothing."""
    if (row.spec, row.out_of_funds) != (spec, out_of_funds):
        row.spec, row.out_of_funds = spec, out_of_funds
        _renew(row)
        session.flush()
    return row


def delete(session: Session, row: Deployment) -> Deployment:
    """Ask for a locked row's end; it is deleted when the cluster has let go of everything."""
    row.state = "deleting"
    _renew(row)
    session.flush()
    return row


def by_key(session: Session, key: str) -> Deployment | None:
    """Return the newest deployment of `<namespace>/<name>`, deleted ones too."""
    namespace, _, name = key.partition("/")
    return session.scalar(
        select(Deployment)
        .where(Deployment.namespace == namespace, Deployment.name == name)
        .order_by(Deployment.id.desc())
        .limit(1)
    )


def stop_for_funds(session: Session, deployment_ids: Collection[uuid.UUID]) -> int:
    """Keep deployments stopped until their owner starts them again with money; return how many.

    Those that another transaction works on are passed over.
    """
    free = (
        select(Deployment.id)
        .where(
            Deployment.id.in_(deployment_ids),
            Deployment.managed == "row",
            Deployment.out_of_funds.is_(False),
        )
        .with_for_update(skip_locked=True, key_share=True)
    )
    stopped = list(session.scalars(free)) if deployment_ids else []
    session.execute(
        update(Deployment)
        .where(Deployment.id.in_(stopped))
        .values(out_of_funds=True, generation=Deployment.generation + 1, changed_at=func.now())
        .execution_options(synchronize_session=False)
    )
    return len(stopped)


def delete_volumes(session: Session, *, tenant_id: uuid.UUID) -> int:
    """Delete a tenant's stopped bare endpoints that have volumes; return how many.

    A volume goes with its endpoint. Those that another transaction works on are passed over.
    """
    found = session.scalars(
        select(Deployment)
        .where(
            Deployment.tenant_id == tenant_id,
            Deployment.path == Path.BARE,
            Deployment.managed == "row",
            Deployment.state == "active",
            Deployment.spec["volume"].astext.is_not(None),
            or_(Deployment.out_of_funds, Deployment.spec["state"].astext == "Stopped"),
        )
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    for row in found:
        delete(session, row)
    return len(found)


def _renew(row: Deployment) -> None:
    row.generation += 1
    row.changed_at = datetime.now(UTC)
    row.refusal = row.refused_at = None
