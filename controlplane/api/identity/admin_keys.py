"""Admin routes of the staff's own keys, for machines."""

import uuid

from fastapi import APIRouter

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, State, page
from controlplane.api.identity.schemas import AdminKeyOut, IssuedAdminKey, NewAdminKey
from controlplane.api.schemas import Page
from controlplane.tenants import keys

router = APIRouter(prefix="/admin/v1/admin-keys", tags=["keys"], route_class=Contract)


@router.get("")
def list_admin_keys(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[AdminKeyOut]:
    """List the staff's keys, oldest first, revoked ones too."""
    found = keys.admin_listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=AdminKeyOut.model_validate, cursor=lambda key: key.id)


@router.post("", status_code=201)
def issue_admin_key(body: NewAdminKey, session: Db, admin: Admin, state: State) -> IssuedAdminKey:
    """Make a key of a role. The answer holds its token, which is never shown again."""
    key, token = keys.issue_admin(
        session, state.pepper, name=body.name, role=body.role, expires_at=body.expires_at
    )
    return IssuedAdminKey(**AdminKeyOut.model_validate(key).model_dump(), key=token)


@router.get("/{key_id}")
def get_admin_key(key_id: uuid.UUID, session: Db, admin: Admin) -> AdminKeyOut:
    """Show a key of the staff."""
    return AdminKeyOut.model_validate(keys.get_admin(session, key_id=key_id))


@router.delete("/{key_id}")
def revoke_admin_key(key_id: uuid.UUID, session: Db, admin: Admin) -> AdminKeyOut:
    """Revoke a key of the staff, the calling one too."""
    return AdminKeyOut.model_validate(keys.revoke_admin(session, key_id=key_id))
