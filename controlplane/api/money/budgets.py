"""Routes of budgets: a tenant's own, and every tenant's for platform admins."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from controlplane.accounts import budgets, limits
from controlplane.accounts.limits import Period, Scope
from controlplane.amounts import Usd
from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, Tenant, page
from controlplane.api.schemas import Body, Page
from controlplane.billing import budget_terms
from controlplane.money import p_to_usd, usd_to_p
from controlplane.tenants import tenants

router = APIRouter(prefix="/v1/account/budgets", tags=["budgets"], route_class=Contract)
admin_router = APIRouter(
    prefix="/admin/v1/tenants/{tenant_id}/budgets", tags=["budgets"], route_class=Contract
)

Percents = Annotated[
    list[Annotated[int, Field(ge=1, le=100)]],
    Field(
        max_length=10,
        description="Percent of the limit; each is told once a period, as the webhook"
        " `budget.threshold`.",
    ),
]


class NewBudget(Body):
    """For a project, for a key, or, with neither, for everything the tenant spends."""

    limit_usd: Usd = Field(examples=["100"], description="The most that a period may cost.")
    period: Period = Field(
        default="month", description="Days and months are those of UTC; `total` never renews."
    )
    project_id: uuid.UUID | None = None
    api_key_id: uuid.UUID | None = Field(
        default=None,
        description="This key and all that take over from it by rotation: they share the budget.",
    )
    thresholds: Percents = Field(default_factory=lambda: list(budget_terms.THRESHOLDS))


class BudgetChange(Body):
    """What is left out stays as it is. A limit below what is spent refuses until it renews."""

    limit_usd: Usd | None = None
    thresholds: Percents | None = None


class BudgetOut(BaseModel):
    """A budget as it stands: `available` is the limit less what is spent and held."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    scope: Scope
    project_id: uuid.UUID | None
    api_key_id: uuid.UUID | None = Field(
        description="Of keys that took over from each other by rotation, the first."
    )
    period: Period
    limit_usd: str
    limit_p: str
    spent_usd: str
    spent_p: str
    held_usd: str
    held_p: str
    available_usd: str = Field(description="Below zero when the limit was lowered meanwhile.")
    available_p: str
    period_started_at: datetime
    renews_at: datetime | None
    thresholds: list[int]

    @classmethod
    def of(cls, limit: limits.Limit) -> "BudgetOut":
        return cls(
            id=limit.id,
            tenant_id=limit.tenant_id,
            scope=limit.scope,
            project_id=limit.project_id,
            api_key_id=limit.api_key_id,
            period=limit.period,
            limit_usd=p_to_usd(limit.limit_p),
            limit_p=str(limit.limit_p),
            spent_usd=p_to_usd(limit.spent_p),
            spent_p=str(limit.spent_p),
            held_usd=p_to_usd(limit.held_p),
            held_p=str(limit.held_p),
            available_usd=p_to_usd(limit.available_p),
            available_p=str(limit.available_p),
            period_started_at=limit.period_started_at,
            renews_at=limit.renews_at,
            thresholds=limit.thresholds,
        )


@router.post("", status_code=201)
def create_own_budget(body: NewBudget, session: Db, tenant: Tenant) -> BudgetOut:
    """Set a budget. Requests that it cannot cover are refused with 402 `budget_exceeded`."""
    return _create(session, tenant.tenant_id, body)


@router.get("")
def list_own_budgets(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 100
) -> Page[BudgetOut]:
    """List budgets as they stand now, oldest first."""
    return _list(session, tenant.tenant_id, after, limit)


@router.get("/{budget_id}")
def get_own_budget(budget_id: uuid.UUID, session: Db, tenant: Tenant) -> BudgetOut:
    """Show a budget as it stands now."""
    limit = budget_terms.get(session, tenant_id=tenant.tenant_id, budget_id=budget_id)
    return BudgetOut.of(limit)


@router.patch("/{budget_id}")
def change_own_budget(
    budget_id: uuid.UUID, body: BudgetChange, session: Db, tenant: Tenant
) -> BudgetOut:
    """Change a budget's limit or its thresholds."""
    return _change(session, tenant.tenant_id, budget_id, body)


@router.delete("/{budget_id}", status_code=204)
def remove_own_budget(budget_id: uuid.UUID, session: Db, tenant: Tenant) -> None:
    """Take a budget away."""
    budget_terms.remove(session, tenant_id=tenant.tenant_id, budget_id=budget_id)


@admin_router.post("", status_code=201)
def create_budget(tenant_id: uuid.UUID, body: NewBudget, session: Db, admin: Admin) -> BudgetOut:
    """Set a budget of a tenant's. Requests that it cannot cover get 402 `budget_exceeded`."""
    return _create(session, tenant_id, body)


@admin_router.get("")
def list_budgets(
    tenant_id: uuid.UUID, session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[BudgetOut]:
    """List a tenant's budgets as they stand now, oldest first."""
    tenants.get(session, tenant_id=tenant_id)
    return _list(session, tenant_id, after, limit)


@admin_router.get("/{budget_id}")
def get_budget(tenant_id: uuid.UUID, budget_id: uuid.UUID, session: Db, admin: Admin) -> BudgetOut:
    """Show a tenant's budget as it stands now."""
    return BudgetOut.of(budget_terms.get(session, tenant_id=tenant_id, budget_id=budget_id))


@admin_router.patch("/{budget_id}")
def change_budget(
    tenant_id: uuid.UUID, budget_id: uuid.UUID, body: BudgetChange, session: Db, admin: Admin
) -> BudgetOut:
    """Change the limit or the thresholds of a tenant's budget."""
    return _change(session, tenant_id, budget_id, body)


@admin_router.delete("/{budget_id}", status_code=204)
def remove_budget(tenant_id: uuid.UUID, budget_id: uuid.UUID, session: Db, admin: Admin) -> None:
    """Take a tenant's budget away."""
    budget_terms.remove(session, tenant_id=tenant_id, budget_id=budget_id)


def _create(session: Session, tenant_id: uuid.UUID, body: NewBudget) -> BudgetOut:
    limit = budget_terms.create(
        session,
        tenant_id=tenant_id,
        period=body.period,
        limit_p=usd_to_p(body.limit_usd),
        project_id=body.project_id,
        api_key_id=body.api_key_id,
        thresholds=body.thresholds,
    )
    return BudgetOut.of(limit)


def _list(
    session: Session, tenant_id: uuid.UUID, after: uuid.UUID | None, limit: int
) -> Page[BudgetOut]:
    found = budgets.of_tenant(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=BudgetOut.of, cursor=lambda budget: budget.id)


def _change(
    session: Session, tenant_id: uuid.UUID, budget_id: uuid.UUID, body: BudgetChange
) -> BudgetOut:
    limit = budget_terms.change(
        session,
        tenant_id=tenant_id,
        budget_id=budget_id,
        limit_p=None if body.limit_usd is None else usd_to_p(body.limit_usd),
        thresholds=body.thresholds,
    )
    return BudgetOut.of(limit)
