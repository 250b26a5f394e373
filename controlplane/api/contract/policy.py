"""Who may call what: every route of both REST apps and the roles that it is open to.

This table is the whole of it. A route that is not in it does not exist: the apps refuse to start.
`contract` asks `allows` before anything else is done for a request; a test walks all routes with
all roles and compares.

Platform staff: `admin` everything; `support` reads, suspends tenants, revokes keys; `billing` reads
and sets prices and money. At a tenant: `owner` everything; `developer` what runs and its keys;
`viewer` reads.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

Roles: TypeAlias = frozenset[str]

ADMIN: Final[Roles] = frozenset({"admin"})
SUPPORT: Final[Roles] = frozenset({"admin", "support"})
BILLING: Final[Roles] = frozenset({"admin", "billing"})
STAFF: Final[Roles] = frozenset({"admin", "support", "billing"})

OWNER: Final[Roles] = frozenset({"owner"})
DEVELOPER: Final[Roles] = frozenset({"owner", "developer"})
MEMBER: Final[Roles] = frozenset({"owner", "developer", "viewer"})

# Whoever has proven who they are, whatever they may do.
KNOWN: Final[Roles] = frozenset({"known"})
PUBLIC: Final[Roles] = frozenset({"public"})

POLICY: Final[Mapping[str, Roles]] = {
    "GET /health": PUBLIC,
    # Platform: customers and their keys.
    "GET /admin/v1/me": STAFF,
    "GET /admin/v1/tenants": STAFF,
    "POST /admin/v1/tenants": ADMIN,
    "GET /admin/v1/tenants/{tenant_id}": STAFF,
    "PATCH /admin/v1/tenants/{tenant_id}": SUPPORT,
    "DELETE /admin/v1/tenants/{tenant_id}": ADMIN,
    "GET /admin/v1/tenants/{tenant_id}/balance": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/top-ups": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/budgets": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/budgets": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/budgets/{budget_id}": STAFF,
    "PATCH /admin/v1/tenants/{tenant_id}/budgets/{budget_id}": BILLING,
    "DELETE /admin/v1/tenants/{tenant_id}/budgets/{budget_id}": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/keys": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/keys": ADMIN,
    "GET /admin/v1/keys/{key_id}": STAFF,
    "DELETE /admin/v1/keys/{key_id}": SUPPORT,
    "GET /admin/v1/tenants/{tenant_id}/projects": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/projects": ADMIN,
    "GET /admin/v1/tenants/{tenant_id}/projects/{project_id}": STAFF,
    "PATCH /admin/v1/tenants/{tenant_id}/projects/{project_id}": ADMIN,
    "GET /admin/v1/tenants/{tenant_id}/members": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/members": ADMIN,
    "GET /admin/v1/tenants/{tenant_id}/members/{member_id}": STAFF,
    "PATCH /admin/v1/tenants/{tenant_id}/members/{member_id}": ADMIN,
    "DELETE /admin/v1/tenants/{tenant_id}/members/{member_id}": ADMIN,
    # Platform: its own people, machines and models.
    "GET /admin/v1/staff": STAFF,
    "POST /admin/v1/staff": ADMIN,
    "GET /admin/v1/staff/{member_id}": STAFF,
    "PATCH /admin/v1/staff/{member_id}": ADMIN,
    "DELETE /admin/v1/staff/{member_id}": ADMIN,
    "GET /admin/v1/admin-keys": ADMIN,
    "POST /admin/v1/admin-keys": ADMIN,
    "GET /admin/v1/admin-keys/{key_id}": ADMIN,
    "DELETE /admin/v1/admin-keys/{key_id}": ADMIN,
    "GET /admin/v1/peppers": STAFF,
    "GET /admin/v1/models": STAFF,
    "GET /admin/v1/models/{name}": STAFF,
    "PUT /admin/v1/models/{name}": ADMIN,
    "DELETE /admin/v1/models/{name}": ADMIN,
    # Platform: money.
    "POST /admin/v1/tenants/{tenant_id}/grants": BILLING,
    "POST /admin/v1/tenants/{tenant_id}/refunds": BILLING,
    "POST /admin/v1/tenants/{tenant_id}/credit-notes": BILLING,
    "POST /admin/v1/tenants/{tenant_id}/waivers": BILLING,
    "POST /admin/v1/tenants/{tenant_id}/adjustments": BILLING,
    "PUT /admin/v1/tenants/{tenant_id}/credit-terms": BILLING,
    "GET /admin/v1/prices": STAFF,
    "POST /admin/v1/prices": BILLING,
    "POST /admin/v1/prices/import": BILLING,
    "POST /admin/v1/prices/preview": BILLING,
    "GET /admin/v1/prices/current": STAFF,
    "GET /admin/v1/price-calendars": STAFF,
    "POST /admin/v1/price-calendars": BILLING,
    "GET /admin/v1/price-calendars/{calendar_id}": STAFF,
    "GET /admin/v1/storage-prices": STAFF,
    "POST /admin/v1/storage-prices": BILLING,
    "GET /admin/v1/gpu-prices": STAFF,
    "POST /admin/v1/gpu-prices": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/commitments": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/commitments": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/burn-rate": STAFF,
    "GET /admin/v1/usage": STAFF,
    "GET /admin/v1/usage/rejected": STAFF,
    "POST /admin/v1/usage/rejected/{request_id}/retry": BILLING,
    "POST /admin/v1/usage/rejected/{request_id}/write-off": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/organization/usage/completions": STAFF,
    "GET /admin/v1/tenants/{tenant_id}/organization/costs": STAFF,
    "GET /admin/v1/ledger": STAFF,
    "GET /admin/v1/ledger/export": STAFF,
    "GET /admin/v1/ledger/hash": STAFF,
    "GET /admin/v1/books": STAFF,
    "GET /admin/v1/invoices": STAFF,
    "GET /admin/v1/invoices/{invoice_id}": STAFF,
    "GET /admin/v1/invoices/{invoice_id}.{rendering}": STAFF,
    "POST /admin/v1/invoices/{invoice_id}/payments": BILLING,
    "GET /admin/v1/tenants/{tenant_id}/invoice-preview": STAFF,
    "GET /admin/v1/tenants/{tenant_id}/billing-profile": STAFF,
    "PUT /admin/v1/tenants/{tenant_id}/billing-profile": BILLING,
    "GET /admin/v1/reconcile": STAFF,
    "GET /admin/v1/reconcile/findings": STAFF,
    "POST /admin/v1/reconcile/findings/{request_id}/explanation": BILLING,
    # Platform: what runs.
    "GET /admin/v1/gpu-configurations": STAFF,
    "GET /admin/v1/deployments": STAFF,
    "POST /admin/v1/deployments": ADMIN,
    "GET /admin/v1/deployments/{deployment_id}": STAFF,
    "PATCH /admin/v1/deployments/{deployment_id}": ADMIN,
    "DELETE /admin/v1/deployments/{deployment_id}": ADMIN,
    "GET /admin/v1/deployments/{deployment_id}/events": STAFF,
    "GET /admin/v1/deployments/{deployment_id}/usage": STAFF,
    # Platform: who did what, and whom tenants have called.
    "GET /admin/v1/audit": STAFF,
    "GET /admin/v1/tenants/{tenant_id}/webhooks": STAFF,
    "POST /admin/v1/tenants/{tenant_id}/webhooks": ADMIN,
    "GET /admin/v1/tenants/{tenant_id}/webhooks/deliveries": STAFF,
    "GET /admin/v1/tenants/{tenant_id}/webhooks/{endpoint_id}": STAFF,
    "PATCH /admin/v1/tenants/{tenant_id}/webhooks/{endpoint_id}": ADMIN,
    "DELETE /admin/v1/tenants/{tenant_id}/webhooks/{endpoint_id}": ADMIN,
    # A tenant: who it is.
    "GET /v1/me": KNOWN,
    "GET /v1/account/keys": MEMBER,
    "POST /v1/account/keys": DEVELOPER,
    "GET /v1/account/keys/{key_id}": MEMBER,
    "DELETE /v1/account/keys/{key_id}": DEVELOPER,
    "POST /v1/account/keys/{key_id}/rotations": DEVELOPER,
    "GET /v1/projects": MEMBER,
    "POST /v1/projects": OWNER,
    "GET /v1/projects/{project_id}": MEMBER,
    "PATCH /v1/projects/{project_id}": OWNER,
    "GET /v1/members": MEMBER,
    "POST /v1/members": OWNER,
    "GET /v1/members/{member_id}": MEMBER,
    "PATCH /v1/members/{member_id}": OWNER,
    "DELETE /v1/members/{member_id}": OWNER,
    # A tenant: what was done in it, and whom it has called.
    "GET /v1/account/audit": OWNER,
    "GET /v1/account/webhooks": MEMBER,
    "POST /v1/account/webhooks": OWNER,
    "GET /v1/account/webhooks/deliveries": MEMBER,
    "POST /v1/account/webhooks/deliveries/{delivery_id}/redeliver": DEVELOPER,
    "GET /v1/account/webhooks/{endpoint_id}": MEMBER,
    "PATCH /v1/account/webhooks/{endpoint_id}": OWNER,
    "DELETE /v1/account/webhooks/{endpoint_id}": OWNER,
    "POST /v1/account/webhooks/{endpoint_id}/ping": DEVELOPER,
    # A tenant: its money.
    "GET /user/balance": MEMBER,
    "GET /v1/user/balance": MEMBER,
    "GET /v1/account": MEMBER,
    "GET /v1/account/usage": MEMBER,
    "GET /v1/account/usage/{request_id}": MEMBER,
    "GET /v1/account/ledger": MEMBER,
    "GET /v1/account/prices": MEMBER,
    "GET /v1/account/budgets": MEMBER,
    "POST /v1/account/budgets": OWNER,
    "GET /v1/account/budgets/{budget_id}": MEMBER,
    "PATCH /v1/account/budgets/{budget_id}": OWNER,
    "DELETE /v1/account/budgets/{budget_id}": OWNER,
    "GET /v1/account/invoices": MEMBER,
    "GET /v1/account/invoices/{invoice_id}": MEMBER,
    "GET /v1/account/invoices/{invoice_id}.{rendering}": MEMBER,
    "GET /v1/account/invoice-preview": MEMBER,
    "GET /v1/account/billing-profile": MEMBER,
    # Opened by a payment provider's signature alone.
    "POST /webhooks/payments": PUBLIC,
    "GET /v1/account/commitments": MEMBER,
    "GET /v1/account/burn-rate": MEMBER,
    "GET /v1/organization/usage/completions": MEMBER,
    "GET /v1/organization/costs": MEMBER,
    # A tenant: what runs.
    "GET /v1/gpu-configurations": MEMBER,
    "GET /v1/deployments": MEMBER,
    "POST /v1/deployments": DEVELOPER,
    "GET /v1/deployments/{deployment_id}": MEMBER,
    "PATCH /v1/deployments/{deployment_id}": DEVELOPER,
    "DELETE /v1/deployments/{deployment_id}": DEVELOPER,
    "GET /v1/deployments/{deployment_id}/events": MEMBER,
    "GET /v1/deployments/{deployment_id}/usage": MEMBER,
    "POST /v1/deployments/{deployment_id}/ssh-keys": DEVELOPER,
    "DELETE /v1/deployments/{deployment_id}/ssh-keys/{name}": DEVELOPER,
}


def roles(method: str, path: str) -> Roles | None:
    """Return the roles that a route, given by its template, is open to; None: it is in no list."""
    return POLICY.get(f"{method} {path}")
