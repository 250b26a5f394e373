"""Who calls the REST API: a machine with a key, or a person with a token of the identity provider.

`contract` proves the caller of every request here, before anything else is done for it.
"""

import uuid
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy.orm import Session
from starlette.requests import Request

from controlplane.api.contract import policy
from controlplane.api.contract.oidc import Verifier
from controlplane.errors import AuthenticationFailed, Forbidden, UnprocessableRequest
from controlplane.tenants import keys, people, projects
from controlplane.tenants.models import AdminKey, ApiKey, Person

# Which of a person's tenants is meant; a key is of one tenant alone.
TENANT_HEADER = "Flashplane-Tenant"

_ROLES = (("own", "owner"), ("manage", "developer"), ("read", "viewer"))


@dataclass(frozen=True, slots=True)
class Staff:
    """One of the platform: a machine with an admin key, or a person.

    Attributes:
        actor: names the caller for ever, as `admin_key:<id>` or `person:<id>`.
        name: what people call it; stands in the ledger as an author.
        role: one of `policy.STAFF`.
    """

    actor: str
    name: str
    role: str

    tenant_id = None


@dataclass(frozen=True, slots=True)
class Member:
    """One of a tenant: a machine with an API key, or a person.

    Attributes:
        actor: names the caller for ever, as `api_key:<id>` or `person:<id>`.
        role: one of `policy.MEMBER`.
        project_id: the key's project; the default one for a person.
        api_key_id: None for a person.
    """

    actor: str
    role: str
    tenant_id: uuid.UUID
    project_id: uuid.UUID
    api_key_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody proven, whatever they may do: `person` for a person, `member` for a key."""

    actor: str
    person: Person | None
    member: Member | None

    role = "known"
    tenant_id = None


@dataclass(frozen=True, slots=True)
class Nobody:
    """Whoever calls a route that is open to all."""

    actor = "anybody"
    role = "public"
    tenant_id = None


Caller: TypeAlias = Staff | Member | Known | Nobody


@dataclass(frozen=True, slots=True)
class Prover:
    """What callers are proven with. `verifier` is None where there are no people."""

    pepper: bytes
    verifier: Verifier | None
    previous: bytes = b""  # the pepper before

    def caller(self, session: Session, request: Request, roles: policy.Roles) -> Caller:
        """Return who calls a route that is open to `roles`.

        Raises:
            AuthenticationFailed: nobody that is known.
            Forbidden: somebody to whom the route is not open.
            UnprocessableRequest: the tenant's header is no id.
            Unavailable: the identity provider cannot be asked for its keys.
        """
        if roles == policy.PUBLIC:
            return Nobody()
        token = _bearer(request)
        is_for_staff = bool(roles & policy.STAFF)
        caller: Caller
        if token.startswith(("dsf_", "dsa_")):
            prove = self._staff_key if is_for_staff else self._tenant_key
            caller = prove(session, token)
        else:
            person = self._person(session, token)
            if is_for_staff:
                caller = _staff(session, person)
            elif roles == policy.KNOWN:
                caller = Known(f"person:{person.id}", person, None)
            else:
                caller = _member(session, person, request)
        if roles == policy.KNOWN:
            return caller if isinstance(caller, Known) else _known(caller)
        if caller.role not in roles:
            raise Forbidden(f"This is not open to the role {caller.role}.")
        return caller

    def _staff_key(self, session: Session, token: str) -> Staff:
        key = keys.authenticate_admin(session, self.pepper, token, previous=self.previous)
        if key is None:
            raise AuthenticationFailed("The admin key is missing, unknown or revoked.")
        keys.note_use(session, AdminKey, [key.id])
        return Staff(f"admin_key:{key.id}", key.name, key.role)

    def _tenant_key(self, session: Session, token: str) -> Member:
        principal = keys.authenticate(session, self.pepper, token, previous=self.previous)
        if principal is None:
            raise AuthenticationFailed("The API key is missing, unknown or revoked.")
        keys.note_use(session, ApiKey, [principal.api_key_id])
        role = next((role for scope, role in _ROLES if scope in principal.scopes), "none")
        return Member(
            f"api_key:{principal.api_key_id}",
            role,
            principal.tenant_id,
            principal.project_id,
            principal.api_key_id,
        )

    def _person(self, session: Session, token: str) -> Person:
        claims = self.verifier.claims(token) if self.verifier and token else None
        if claims is None:
            raise AuthenticationFailed("The key or token is missing, unknown or expired.")
        return people.known(session, claims)


def _bearer(request: Request) -> str:
    values = request.headers.getlist("authorization")
    if len(values) != 1:
        return ""
    scheme, _, token = values[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _known(caller: Caller) -> Known:
    assert isinstance(caller, Member)
    return Known(caller.actor, None, caller)


def _staff(session: Session, person: Person) -> Staff:
    role = people.role(session, person, tenant_id=None)
    if role is None:
        raise Forbidden("You are not one of the platform's staff.")
    return Staff(f"person:{person.id}", person.name, role)


def _member(session: Session, person: Person, request: Request) -> Member:
    """Return what a person is at the tenant they name, or at the only one that they are of."""
    named = request.headers.get(TENANT_HEADER)
    if named is None:
        found = [it for it in people.memberships(session, person) if it.tenant_id is not None]
        if len(found) > 1:
            raise UnprocessableRequest(
                f"You are a member of {len(found)} tenants: name one in the header"
                f" {TENANT_HEADER}.",
                param=TENANT_HEADER,
            )
        tenant_id = found[0].tenant_id if found else None
    else:
        try:
            tenant_id = uuid.UUID(named)
        except ValueError:
            raise UnprocessableRequest("This is no tenant's id.", param=TENANT_HEADER) from None
    role = people.role(session, person, tenant_id=tenant_id) if tenant_id else None
    if tenant_id is None or role is None:
        # One answer for a tenant that is not there, is suspended, or is others'.
        raise Forbidden("You are not a member of this tenant.")
    project = projects.get(session, tenant_id=tenant_id)
    return Member(f"person:{person.id}", role, tenant_id, project.id, None)
