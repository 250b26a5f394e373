"""What routes depend on: a session, a proven caller, a page. Called by FastAPI."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session, sessionmaker

from controlplane.api.schemas import Page
from controlplane.billing.invoices.profiles import Seller
from controlplane.deployments.orders import Terms
from controlplane.errors import AuthenticationFailed
from controlplane.tenants import keys
from controlplane.tenants.keys import Principal
from controlplane.tenants.models import AdminKey

_MAX_PAGE = 1000

Found = TypeVar("Found")
Shown = TypeVar("Shown")

_tenant_key = HTTPBearer(auto_error=False, scheme_name="API key", description="dsf_...")
_admin_key = HTTPBearer(auto_error=False, scheme_name="Admin key", description="dsa_...")
_Credentials = HTTPAuthorizationCredentials | None


@dataclass(frozen=True, slots=True)
class ApiState:
    """What an app keeps for its routes; `request.app.state.api`."""

    sessions: sessionmaker[Session]
    pepper: bytes
    terms: Terms
    seller: Seller
    payment_secrets: tuple[bytes, ...]


def _state(request: Request) -> ApiState:
    state: ApiState = request.app.state.api
    return state


State = Annotated[ApiState, Depends(_state)]


def _session(state: State) -> Iterator[Session]:
    with state.sessions.begin() as session:
        yield session


# Scope "function": committed before the answer leaves, so an answer is never untrue.
Db = Annotated[Session, Depends(_session, scope="function")]


def _tenant(
    state: State, session: Db, credentials: Annotated[_Credentials, Security(_tenant_key)]
) -> Principal:
    token = credentials.credentials if credentials else ""
    principal = keys.authenticate(session, state.pepper, token)
    if principal is None:
        raise AuthenticationFailed("The API key is missing, unknown or revoked.")
    return principal


def _admin(
    state: State, session: Db, credentials: Annotated[_Credentials, Security(_admin_key)]
) -> AdminKey:
    token = credentials.credentials if credentials else ""
    admin = keys.authenticate_admin(session, state.pepper, token)
    if admin is None:
        raise AuthenticationFailed("The admin key is missing, unknown or revoked.")
    return admin


Tenant = Annotated[Principal, Depends(_tenant, scope="function")]
Admin = Annotated[AdminKey, Depends(_admin, scope="function")]

Limit = Annotated[int, Query(ge=1, le=_MAX_PAGE, description="most items on this page")]
AfterId = Annotated[uuid.UUID | None, Query(description="`next` of the page before")]
AfterNumber = Annotated[
    int | None, Query(ge=0, le=2**63 - 1, description="`next` of the page before")
]
OfTenant = Annotated[uuid.UUID | None, Query(description="only this tenant's")]


def page(
    found: Sequence[Found],
    limit: int,
    *,
    show: Callable[[Found], Shown],
    cursor: Callable[[Found], object],
) -> Page[Shown]:
    """Return the page of a listing that was asked for `limit + 1` items."""
    more = len(found) > limit
    return Page(
        data=[show(item) for item in found[:limit]],
        next=str(cursor(found[limit - 1])) if more else None,
    )
