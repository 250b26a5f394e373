"""Routes of API keys: a tenant's own, and every tenant's for the platform."""

import uuid
from collections.abc import Collection
from datetime import timedelta

from fastapi import APIRouter

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, State, Tenant, page
from controlplane.api.identity.schemas import Rotation
from controlplane.api.schemas import IssuedKey, KeyOut, NewKey, Page
from controlplane.errors import Forbidden
from controlplane.tenants import keys, tenants
from controlplane.tenants.keys import ALL_SCOPES
from controlplane.tenants.models import ApiKey

admin_router = APIRouter(prefix="/admin/v1", tags=["keys"], route_class=Contract)
router = APIRouter(prefix="/v1/account/keys", tags=["keys"], route_class=Contract)


@admin_router.post("/tenants/{tenant_id}/keys", status_code=201)
def issue_tenant_key(
    tenant_id: uuid.UUID, body: NewKey, session: Db, admin: Admin, state: State
) -> IssuedKey:
    """Make a key. The answer holds its token, which is never shown again."""
    return _issue(session, state, tenant_id, body, body.scopes or ALL_SCOPES)


@admin_router.get("/tenants/{tenant_id}/keys")
def list_tenant_keys(
    tenant_id: uuid.UUID, session: Db, admin: Admin, after: AfterId = None, limit: Limit = 1000
) -> Page[KeyOut]:
    """List a tenant's keys, oldest first, revoked ones too."""
    tenants.get(session, tenant_id=tenant_id)
    return _list(session, tenant_id, after, limit)


@admin_router.get("/keys/{key_id}")
def get_tenant_key(key_id: uuid.UUID, session: Db, admin: Admin) -> KeyOut:
    """Show a key of any tenant."""
    return KeyOut.model_validate(keys.get(session, key_id=key_id))


@admin_router.delete("/keys/{key_id}")
def revoke_tenant_key(key_id: uuid.UUID, session: Db, admin: Admin) -> KeyOut:
    """Revoke a key: within a second it opens nothing. Running requests finish."""
    return KeyOut.model_validate(keys.revoke(session, key_id=key_id))


@router.get("")
def list_keys(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 1000
) -> Page[KeyOut]:
    """List the account's keys, oldest first, revoked ones too."""
    return _list(session, tenant.tenant_id, after, limit)


@router.post("", status_code=201)
def issue_key(body: NewKey, session: Db, tenant: Tenant, state: State) -> IssuedKey:
    """Make another key, which may do no more than whoever makes it. The answer holds its token,
    which is never shown again."""
    most = ALL_SCOPES if tenant.role == "owner" else ALL_SCOPES[:-1]
    scopes = body.scopes or most
    _check_within(tenant, scopes)
    return _issue(session, state, tenant.tenant_id, body, scopes)


@router.get("/{key_id}")
def get_key(key_id: uuid.UUID, session: Db, tenant: Tenant) -> KeyOut:
    """Show a key."""
    return KeyOut.model_validate(keys.get(session, key_id=key_id, tenant_id=tenant.tenant_id))


@router.delete("/{key_id}")
def revoke_key(key_id: uuid.UUID, session: Db, tenant: Tenant) -> KeyOut:
    """Revoke a key of this account, the calling one too: within a second it opens nothing. Running
    requests finish."""
    key = keys.get(session, key_id=key_id, tenant_id=tenant.tenant_id)
    _check_within(tenant, key.scopes)
    return KeyOut.model_validate(keys.revoke(session, key_id=key_id, tenant_id=tenant.tenant_id))


@router.post("/{key_id}/rotations", status_code=201)
def rotate_key(
    key_id: uuid.UUID, body: Rotation, session: Db, tenant: Tenant, state: State
) -> IssuedKey:
    """Make the key that takes over from this one. Both live until the overlap ends."""
    key = keys.get(session, key_id=key_id, tenant_id=tenant.tenant_id, to_change=True)
    _check_within(tenant, key.scopes)
    overlap = timedelta(seconds=body.overlap_seconds)
    return _issued(*keys.rotate(session, state.pepper, key=key, overlap=overlap))


def _check_within(tenant: Tenant, scopes: Collection[str]) -> None:
    """Nobody makes or handles a key that may do more than they may.

    Raises:
        Forbidden: this one may.
    """
    if "own" in scopes and tenant.role != "owner":
        raise Forbidden("Only an owner handles keys with the scope 'own'.", param="scopes")


def _issue(
    session: Db, state: State, tenant_id: uuid.UUID, body: NewKey, scopes: Collection[str]
) -> IssuedKey:
    return _issued(
        *keys.issue(
            session,
            state.pepper,
            tenant_id=tenant_id,
            name=body.name,
            project_id=body.project_id,
            scopes=scopes,
            expires_at=body.expires_at,
        )
    )


def _issued(key: ApiKey, token: str) -> IssuedKey:
    return IssuedKey(**KeyOut.model_validate(key).model_dump(), key=token)


def _list(session: Db, tenant_id: uuid.UUID, after: uuid.UUID | None, limit: int) -> Page[KeyOut]:
    found = keys.listing(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=KeyOut.model_validate, cursor=lambda key: key.id)
