"""Routes of people: a tenant's members, every tenant's for the platform, the platform's staff."""

import uuid

from fastapi import APIRouter

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Anybody, Db, Limit, Tenant, page
from controlplane.api.identity.schemas import (
    Me,
    MemberChange,
    MemberOut,
    MembershipOut,
    NewMember,
    NewStaff,
    StaffChange,
    StaffMe,
)
from controlplane.api.schemas import Page
from controlplane.tenants import people, tenants

router = APIRouter(prefix="/v1", tags=["members"], route_class=Contract)
admin_router = APIRouter(prefix="/admin/v1", tags=["members"], route_class=Contract)


@router.get("/me")
def get_me(session: Db, caller: Anybody) -> Me:
    """Tell who calls, and what they may do where."""
    if caller.member is not None:
        only = MembershipOut(tenant_id=caller.member.tenant_id, role=caller.member.role)
        return Me(actor=caller.actor, name=None, email=None, memberships=[only])
    person = caller.person
    assert person is not None
    found = [
        MembershipOut(tenant_id=it.tenant_id, role=it.role)
        for it in people.memberships(session, person)
    ]
    return Me(actor=caller.actor, name=person.name, email=person.email, memberships=found)


@router.get("/members")
def list_members(
    session: Db, tenant: Tenant, after: AfterId = None, limit: Limit = 100
) -> Page[MemberOut]:
    """List members and invitations."""
    return _list(session, tenant.tenant_id, after, limit)


@router.post("/members", status_code=201)
def invite_member(body: NewMember, session: Db, tenant: Tenant) -> MemberOut:
    """Invite somebody by email address."""
    return _invite(session, tenant.tenant_id, body)


@router.get("/members/{member_id}")
def get_member(member_id: uuid.UUID, session: Db, tenant: Tenant) -> MemberOut:
    """Show a member."""
    return _show(session, tenant.tenant_id, member_id)


@router.patch("/members/{member_id}")
def change_member(
    member_id: uuid.UUID, body: MemberChange, session: Db, tenant: Tenant
) -> MemberOut:
    """Give a member another role."""
    return _change(session, tenant.tenant_id, member_id, body)


@router.delete("/members/{member_id}")
def remove_member(member_id: uuid.UUID, session: Db, tenant: Tenant) -> MemberOut:
    """Remove a member, or take an invitation back. Keys stay: they are the tenant's."""
    return _remove(session, tenant.tenant_id, member_id)


@admin_router.get("/me")
def get_staff_me(admin: Admin) -> StaffMe:
    """Tell who calls, and in which role."""
    return StaffMe(actor=admin.actor, name=admin.name, role=admin.role)


@admin_router.get("/tenants/{tenant_id}/members")
def list_tenant_members(
    tenant_id: uuid.UUID, session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[MemberOut]:
    """List a tenant's members and invitations."""
    tenants.get(session, tenant_id=tenant_id)
    return _list(session, tenant_id, after, limit)


@admin_router.post("/tenants/{tenant_id}/members", status_code=201)
def invite_tenant_member(
    tenant_id: uuid.UUID, body: NewMember, session: Db, admin: Admin
) -> MemberOut:
    """Invite somebody to a tenant by email address."""
    return _invite(session, tenant_id, body)


@admin_router.get("/tenants/{tenant_id}/members/{member_id}")
def get_tenant_member(
    tenant_id: uuid.UUID, member_id: uuid.UUID, session: Db, admin: Admin
) -> MemberOut:
    """Show a tenant's member."""
    return _show(session, tenant_id, member_id)


@admin_router.patch("/tenants/{tenant_id}/members/{member_id}")
def change_tenant_member(
    tenant_id: uuid.UUID, member_id: uuid.UUID, body: MemberChange, session: Db, admin: Admin
) -> MemberOut:
    """Give a tenant's member another role."""
    return _change(session, tenant_id, member_id, body)


@admin_router.delete("/tenants/{tenant_id}/members/{member_id}")
def remove_tenant_member(
    tenant_id: uuid.UUID, member_id: uuid.UUID, session: Db, admin: Admin
) -> MemberOut:
    """Remove a tenant's member, or take an invitation back."""
    return _remove(session, tenant_id, member_id)


@admin_router.get("/staff")
def list_staff(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[MemberOut]:
    """List the platform's people and those invited."""
    return _list(session, None, after, limit)


@admin_router.post("/staff", status_code=201)
def invite_staff(body: NewStaff, session: Db, admin: Admin) -> MemberOut:
    """Invite somebody to the platform's staff by email address."""
    return _invite(session, None, body)


@admin_router.get("/staff/{member_id}")
def get_staff(member_id: uuid.UUID, session: Db, admin: Admin) -> MemberOut:
    """Show one of the platform's people."""
    return _show(session, None, member_id)


@admin_router.patch("/staff/{member_id}")
def change_staff(member_id: uuid.UUID, body: StaffChange, session: Db, admin: Admin) -> MemberOut:
    """Give one of the platform's people another role."""
    return _change(session, None, member_id, body)


@admin_router.delete("/staff/{member_id}")
def remove_staff(member_id: uuid.UUID, session: Db, admin: Admin) -> MemberOut:
    """Remove one of the platform's people, or take an invitation back."""
    return _remove(session, None, member_id)


def _list(
    session: Db, tenant_id: uuid.UUID | None, after: uuid.UUID | None, limit: int
) -> Page[MemberOut]:
    found = people.listing(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=MemberOut.model_validate, cursor=lambda member: member.id)


def _invite(session: Db, tenant_id: uuid.UUID | None, body: NewMember | NewStaff) -> MemberOut:
    invited = people.invite(session, tenant_id=tenant_id, email=body.email, role=body.role)
    return MemberOut.model_validate(invited)


def _show(session: Db, tenant_id: uuid.UUID | None, member_id: uuid.UUID) -> MemberOut:
    return MemberOut.model_validate(people.get(session, tenant_id=tenant_id, member_id=member_id))


def _change(
    session: Db, tenant_id: uuid.UUID | None, member_id: uuid.UUID, body: MemberChange | StaffChange
) -> MemberOut:
    member = people.get(session, tenant_id=tenant_id, member_id=member_id, to_change=True)
    return MemberOut.model_validate(people.change_role(session, member, body.role))


def _remove(session: Db, tenant_id: uuid.UUID | None, member_id: uuid.UUID) -> MemberOut:
    member = people.get(session, tenant_id=tenant_id, member_id=member_id, to_change=True)
    gone = MemberOut.model_validate(member)
    people.remove(session, member)
    return gone
