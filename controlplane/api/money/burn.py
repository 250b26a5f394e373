"""What a tenant's deployments use up an hour, and for how long its funds last."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.orm import Session

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db, Tenant
from controlplane.billing.gpu import burn
from controlplane.billing.gpu.burn import Burn
from controlplane.billing.gpu.descent import Funds, Level
from controlplane.money import p_to_usd
from controlplane.tenants import tenants

admin_router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}/burn-rate", tags=["account"], route_class=Contract
)
tenant_router = APIRouter(prefix="/v1/account/burn-rate", tags=["account"], route_class=Contract)


class BurnOut(BaseModel):
    """What live replicas and volumes cost an hour now, and how long the funds last at that.

    `hours_left` is null while nothing costs anything. `funds` is the level that warnings go by:
    less than a day is left, less than an hour, less than a minute.
    """

    gpu_usd_per_hour: str
    storage_usd_per_hour: str
    usd_per_hour: str
    p_per_hour: str
    not_charged_yet_usd: str
    hours_left: str | None
    funds: Level

    @classmethod
    def of(cls, found: Burn, funds: Funds) -> Self:
        per_hour_p = funds.burn_p_per_hour
        left_p = max(0, funds.funds_p - funds.owed_p)
        return cls(
            gpu_usd_per_hour=p_to_usd(found.gpu_p_per_hour),
            storage_usd_per_hour=p_to_usd(found.storage_p_per_hour),
            usd_per_hour=p_to_usd(per_hour_p),
            p_per_hour=str(per_hour_p),
            not_charged_yet_usd=p_to_usd(found.owed_p),
            hours_left=f"{Decimal(left_p) / per_hour_p:.2f}" if per_hour_p else None,
            funds=funds.level,
        )


@admin_router.get("")
def get_burn(tenant_id: uuid.UUID, session: Db, admin: Admin) -> BurnOut:
    """Show what a tenant's deployments use up an hour."""
    tenants.get(session, tenant_id=tenant_id)
    return _burn(session, tenant_id)


@tenant_router.get("")
def get_own_burn(session: Db, tenant: Tenant) -> BurnOut:
    """Show what the account's deployments use up an hour."""
    return _burn(session, tenant.tenant_id)


def _burn(session: Session, tenant_id: uuid.UUID) -> BurnOut:
    found = burn.burns(session, datetime.now(UTC), tenant_ids=[tenant_id]).get(tenant_id, Burn())
    return BurnOut.of(found, burn.funds_of(session, {tenant_id: found})[tenant_id])
