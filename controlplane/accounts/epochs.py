"""Gateway epochs: one life of one gateway process. Called by `usage.recovery` and the gateway.

Holds name the epoch they were placed in. While it is open its gateway alone ends them; once it is
closed, with its journal staged, what is left of them may be released.
"""

import uuid
from collections.abc import Collection

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from controlplane.accounts.models import GatewayEpoch
from controlplane.errors import Unavailable

_KEEP_OPEN = (
    select(GatewayEpoch.id)
    .where(
        GatewayEpoch.id.in_(bindparam("epoch_ids", expanding=True)),
        GatewayEpoch.closed_at.is_(None),
    )
    .order_by(GatewayEpoch.id)
    .with_for_update(read=True)
)


class EpochClosed(Unavailable):
    """This gateway process has been declared dead; it must stop, its next life takes over."""

    default_code = "gateway_epoch_closed"


def begin(session: Session, gateway: str) -> uuid.UUID:
    """Open a new epoch of the named gateway."""
    epoch = GatewayEpoch(gateway=gateway)
    session.add(epoch)
    session.flush()
    return epoch.id


def close(session: Session, epoch_id: uuid.UUID) -> None:
    """Close an epoch whose journal is staged, in this transaction or before."""
    session.execute(
        update(GatewayEpoch)
        .where(GatewayEpoch.id == epoch_id, GatewayEpoch.closed_at.is_(None))
        .values(closed_at=func.now())
        .execution_options(synchronize_session=False)
    )


def keep_open(session: Session, epoch_ids: Collection[uuid.UUID]) -> None:
    """Prove that the epochs are open and keep them so until this transaction ends.

    Raises:
        EpochClosed: one of them is closed or unknown.
    """
    wanted = set(epoch_ids)
    found = session.scalars(_KEEP_OPEN, {"epoch_ids": list(wanted)})
    if wanted - set(found):
        raise EpochClosed("This gateway has been replaced and takes no more requests.")


def open_of(session: Session, gateway: str) -> list[uuid.UUID]:
    """Return and lock the open epochs of a gateway, oldest first."""
    return list(
        session.scalars(
            select(GatewayEpoch.id)
            .where(GatewayEpoch.gateway == gateway, GatewayEpoch.closed_at.is_(None))
            .order_by(GatewayEpoch.id)
            .with_for_update()
        )
    )


def known(session: Session, epoch_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of `epoch_ids` that this database has given out."""
    return set(session.scalars(select(GatewayEpoch.id).where(GatewayEpoch.id.in_(epoch_ids))))
