"""Admin routes of tenants' API keys."""

import uuid

from fastapi import APIRouter

from controlplane.api.contract import Contract
from controlplane.api.deps import Admin, Db, State
from controlplane.api.schemas import IssuedKey, KeyOut, NewKey, Page
from controlplane.tenants import keys, tenants
from controlplane.tenants.models import ApiKey

router = APIRouter(prefix="/admin/v1", tags=["keys"], route_class=Contract)


@router.post("/tenants/{tenant_id}/keys", status_code=201)
def issue_key(
    tenant_id: uuid.UUID, body: NewKey, session: Db, admin: Admin, state: State
) -> IssuedKey:
    """Make a key. The answer holds its token, which is never shown again."""
    return issued(*keys.issue(session, state.pepper, tenant_id=tenant_id, name=body.name))


@router.get("/tenants/{tenant_id}/keys")
def list_keys(tenant_id: uuid.UUID, session: Db, admin: Admin) -> Page[KeyOut]:
    """List a tenant's keys, revoked ones too."""
    tenants.get(session, tenant_id=tenant_id)
    return listed(keys.listing(session, tenant_id=tenant_id))


@router.delete("/keys/{key_id}")
def revoke_key(key_id: uuid.UUID, session: Db, admin: Admin) -> KeyOut:
    """Revoke a key: within a second it opens nothing."""
    return KeyOut.model_validate(keys.revoke(session, key_id=key_id))


def issued(key: ApiKey, token: str) -> IssuedKey:
    """Return a new key with its token."""
    return IssuedKey(**KeyOut.model_validate(key).model_dump(), key=token)


def listed(found: list[ApiKey]) -> Page[KeyOut]:
    """Return all keys on one page; a tenant has few."""
    return Page(data=[KeyOut.model_validate(key) for key in found], next=None)
