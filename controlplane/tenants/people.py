"""People: whom the identity provider vouches for, and what they may do. Called by the REST API.

A membership begins as an invitation of an email address. The first person whose provider says that
this address is theirs, and verified, is bound to it; from then on the address says nothing. A
membership without a tenant is one of the platform's staff.
"""

import uuid
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from controlplane.db import uuid7
from controlplane.errors import Conflict, NotFound
from controlplane.tenants.models import Membership, Person, Tenant


@dataclass(frozen=True, slots=True)
class Claims:
    """What a proven token says of a person; `email` only if the provider has verified it."""

    issuer: str
    subject: str
    email: str | None
    name: str


def known(session: Session, claims: Claims) -> Person:
    """Return the person of proven claims, bound to the invitations of their address."""
    query = select(Person).where(Person.issuer == claims.issuer, Person.subject == claims.subject)
    person = session.scalar(query)
    if person is None:
        session.execute(
            insert(Person)
            .values(
                id=uuid7(),
                issuer=claims.issuer,
                subject=claims.subject,
                email=claims.email,
                name=claims.name,
            )
            .on_conflict_do_nothing(index_elements=["issuer", "subject"])
        )
        person = session.scalars(query).one()
    if (person.email, person.name) != (claims.email, claims.name):
        person.email, person.name = claims.email, claims.name
        session.flush()
    if claims.email is not None:
        _bind(session, person, claims.email)
    return person


def _bind(session: Session, person: Person, email: str) -> None:
    theirs = aliased(Membership)
    bound = select(theirs.id).where(
        theirs.person_id == person.id,
        theirs.tenant_id.is_not_distinct_from(Membership.tenant_id),
    )
    session.execute(
        update(Membership)
        .where(
            Membership.person_id.is_(None),
            Membership.email == normal(email),
            ~bound.correlate(Membership).exists(),
        )
        .values(person_id=person.id),
        execution_options={"synchronize_session": False},
    )


def role(session: Session, person: Person, *, tenant_id: uuid.UUID | None) -> str | None:
    """Return a person's role at an active tenant, or in the staff without one; None if none."""
    query = select(Membership.role).where(Membership.person_id == person.id)
    if tenant_id is None:
        return session.scalar(query.where(Membership.tenant_id.is_(None)))
    return session.scalar(
        query.join(Tenant, Tenant.id == Membership.tenant_id).where(
            Tenant.id == tenant_id, Tenant.status == "active"
        )
    )


def memberships(session: Session, person: Person) -> list[Membership]:
    """Return all of a person's memberships, oldest first."""
    query = select(Membership).where(Membership.person_id == person.id).order_by(Membership.id)
    return list(session.scalars(query))


def listing(
    session: Session, *, tenant_id: uuid.UUID | None, after: uuid.UUID | None, limit: int
) -> list[Membership]:
    """Return members and invitations, of the staff without a tenant, those after the id `after`."""
    query = select(Membership).where(Membership.tenant_id.is_not_distinct_from(tenant_id))
    if after is not None:
        query = query.where(Membership.id > after)
    return list(session.scalars(query.order_by(Membership.id).limit(limit)))


def get(
    session: Session, *, tenant_id: uuid.UUID | None, member_id: uuid.UUID, to_change: bool = False
) -> Membership:
    """Return a membership of a tenant, or of the staff without one.

    Raises:
        NotFound: no such membership, or another tenant's.
    """
    member = session.get(Membership, member_id, with_for_update=to_change)
    if member is None or member.tenant_id != tenant_id:
        raise NotFound(f"There is no member {member_id}.")
    return member


def invite(session: Session, *, tenant_id: uuid.UUID | None, email: str, role: str) -> Membership:
    """Let the owner of an email address in, when they first log in.

    Raises:
        NotFound: no such tenant.
        Conflict: the address is invited already.
    """
    if tenant_id is not None and session.get(Tenant, tenant_id) is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    member: Membership | None = session.scalar(
        insert(Membership)
        .values(id=uuid7(), tenant_id=tenant_id, email=normal(email), role=role)
        .on_conflict_do_nothing(index_elements=["tenant_id", "email"])
        .returning(Membership)
    )
    if member is None:
        raise Conflict(f"{email} is a member already.", param="email")
    return member


def change_role(session: Session, member: Membership, role: str) -> Membership:
    """Give a member another role.

    Raises:
        Conflict: nobody would be owner any more.
    """
    if member.role == "owner" and role != "owner":
        _check_not_last(session, member)
    member.role = role
    session.flush()
    return member


def remove(session: Session, member: Membership) -> None:
    """Take a member's role away, or an invitation back.

    Raises:
        Conflict: nobody would be owner any more.
    """
    if member.role == "owner":
        _check_not_last(session, member)
    session.delete(member)
    session.flush()


def _check_not_last(session: Session, member: Membership) -> None:
    if member.person_id is None:
        return
    owners = session.scalars(
        select(Membership.id)
        .where(
            Membership.tenant_id == member.tenant_id,
            Membership.role == "owner",
            Membership.person_id.is_not(None),
        )
        .order_by(Membership.id)
        .with_for_update()
    ).all()
    if list(owners) == [member.id]:
        raise Conflict("This is the last owner: make somebody else one first.")


def normal(email: str) -> str:
    """Return an address as it is compared: mail servers do not tell cases apart."""
    return email.strip().lower()
