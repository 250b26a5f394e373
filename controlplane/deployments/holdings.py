"""What of a tenant's money is set aside for what runs. Called by orders and the REST API."""

import uuid
from dataclasses import dataclass

from sqlalchemy import ScalarSelect, func, select, type_coerce
from sqlalchemy.orm import Session

from controlplane.accounts.ledger import BALANCE_COLUMNS, Balance, balance_of
from controlplane.accounts.models import Account, BalanceType
from controlplane.deployments.models import GpuInterval, VolumeInterval
from controlplane.errors import NotFound


@dataclass(frozen=True, slots=True)
class Held:
    """What the held sum of an account is for, in p$: the three are all of it."""

    requests_p: int
    gpu_p: int
    storage_p: int


def balance(session: Session, *, tenant_id: uuid.UUID) -> tuple[Balance, Held]:
    """Return a tenant's money and what is held of it for what, as of one moment.

    Raises:
        NotFound: no such tenant.
    """
    row = session.execute(
        select(
            *BALANCE_COLUMNS,
            _held_p(GpuInterval, tenant_id).label("gpu_p"),
            _held_p(VolumeInterval, tenant_id).label("storage_p"),
        ).where(Account.tenant_id == tenant_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    held = Held(row.held_p - row.gpu_p - row.storage_p, row.gpu_p, row.storage_p)
    return balance_of(row), held


def _held_p(
    table: type[GpuInterval] | type[VolumeInterval], tenant_id: uuid.UUID
) -> ScalarSelect[int]:
    # As the index says it, which has only those that hold something.
    mine = (table.tenant_id == tenant_id, table.held_p > 0)
    total_p = type_coerce(func.coalesce(func.sum(table.held_p), 0), BalanceType)
    return select(total_p).where(*mine).scalar_subquery()
