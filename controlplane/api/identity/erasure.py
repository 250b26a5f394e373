"""Admin route that deletes a tenant for ever."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db
from controlplane.api.schemas import TenantOut
from controlplane.billing import erasure

router = APIRouter(prefix="/admin/v1/tenants", tags=["tenants"], route_class=Contract)

_Waive = Annotated[
    bool, Query(description="give up what is left on the account, money or debt, for good")
]


@router.delete("/{tenant_id}")
def erase_tenant(
    tenant_id: uuid.UUID, session: Db, admin: Admin, waive_balance: _Waive = False
) -> TenantOut:
    """Delete a tenant for ever: erase the person, keep the books.

    Its keys open nothing from now on. Names, members, billing address, webhooks and what its
    deployments were made of are erased, its commitments end; the ledger, usage, final invoices and
    the audit log stay and tell it by its id. Refused while something of it runs, is unsettled or
    not invoiced, or money is left on the account or due of a commitment.
    """
    tenant = erasure.erase(
        session, tenant_id=tenant_id, author=admin.actor, waive_balance=waive_balance
    )
    return TenantOut.model_validate(tenant)
