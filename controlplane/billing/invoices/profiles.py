"""Who is billed and how it is taxed. Called by the REST API and `lifecycle`.

A change counts for invoices that become final after it.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.billing.invoices.models import BillingProfile
from controlplane.errors import NotFound, UnprocessableRequest
from controlplane.settings import Settings
from controlplane.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Seller:
    """Who sells, as invoices tell it, and on which terms; from the settings."""

    name: str
    address: str
    tax_id: str
    series: str
    grace_hours: float
    payment_days: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            name=settings.seller_name,
            address=settings.seller_address.replace("\\n", "\n"),
            tax_id=settings.seller_tax_id,
            series=settings.invoice_series,
            grace_hours=settings.invoice_grace_hours,
            payment_days=settings.invoice_payment_days,
        )

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "address": self.address, "tax_id": self.tax_id}


def of(session: Session, *, tenant_id: uuid.UUID) -> BillingProfile:
    """Return a tenant's profile, one with its name alone when it has none.

    Raises:
        NotFound: no such tenant.
    """
    profile = session.get(BillingProfile, tenant_id, populate_existing=True)
    if profile is not None:
        return profile
    name = session.scalar(select(Tenant.name).where(Tenant.id == tenant_id))
    if name is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    return BillingProfile(
        tenant_id=tenant_id,
        legal_name=name,
        address="",
        tax_id="",
        tax_name="Tax",
        tax_basis_points=0,
        reverse_charge_note=None,
        payment_days=None,
        changed_at=datetime.now(UTC),
    )


def put(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    legal_name: str,
    address: str,
    tax_id: str,
    tax_name: str,
    tax_basis_points: int,
    reverse_charge_note: str | None,
    payment_days: int | None,
) -> BillingProfile:
    """Write a tenant's profile. 1,900 basis points are 19 %.

    Raises:
        NotFound: no such tenant.
        UnprocessableRequest: a reverse charge with a rate of tax.
    """
    if reverse_charge_note is not None and tax_basis_points:
        raise UnprocessableRequest(
            "With a reverse charge the customer owes the tax: the rate must be 0.",
            param="tax_basis_points",
        )
    profile = session.merge(of(session, tenant_id=tenant_id))
    profile.legal_name = legal_name
    profile.address = address
    profile.tax_id = tax_id
    profile.tax_name = tax_name
    profile.tax_basis_points = tax_basis_points
    profile.reverse_charge_note = reverse_charge_note
    profile.payment_days = payment_days
    profile.changed_at = datetime.now(UTC)
    session.flush()
    return profile


def told(profile: BillingProfile) -> dict[str, Any]:
    """Return what an invoice tells of its customer."""
    return {
        "tenant_id": str(profile.tenant_id),
        "name": profile.legal_name,
        "address": profile.address,
        "tax_id": profile.tax_id,
    }
