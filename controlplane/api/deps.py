"""What routes depend on: a session, a proven caller, a page. Called by FastAPI."""

import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from controlplane.api.contract.callers import TENANT_HEADER, Known, Member, Staff
from controlplane.api.contract.state import ApiState
from controlplane.api.schemas import Page

_MAX_PAGE = 1000

Found = TypeVar("Found")
Shown = TypeVar("Shown")

_member_token = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="an API key, dsf_...; or a person's token of the identity provider",
)
_staff_token = HTTPBearer(
    auto_error=False,
    scheme_name="Admin key",
    description="an admin key, dsa_...; or a token of one of the platform's staff",
)
_Credentials = HTTPAuthorizationCredentials | None
_OfTenant = Annotated[
    str | None,
    Header(
        alias=TENANT_HEADER,
        description="which tenant a person means who is a member of several; ignored with a key",
    ),
]


async def _state(request: Request) -> ApiState:
    state: ApiState = request.app.state.api
    return state


async def _session(request: Request) -> Session:
    session: Session = request.state.session
    return session


# The caller is proven by `contract`, before any of these is asked: they only pass it on.


async def _member(
    request: Request,
    _token: Annotated[_Credentials, Security(_member_token)],
    _tenant: _OfTenant = None,
) -> Member:
    assert isinstance(request.state.caller, Member)
    return request.state.caller


async def _known(
    request: Request, _token: Annotated[_Credentials, Security(_member_token)]
) -> Known:
    assert isinstance(request.state.caller, Known)
    return request.state.caller


async def _staff(
    request: Request, _token: Annotated[_Credentials, Security(_staff_token)]
) -> Staff:
    assert isinstance(request.state.caller, Staff)
    return request.state.caller


State = Annotated[ApiState, Depends(_state)]
# The request's transaction, committed before its answer leaves.
Db = Annotated[Session, Depends(_session)]
Tenant = Annotated[Member, Depends(_member)]
Anybody = Annotated[Known, Depends(_known)]
Admin = Annotated[Staff, Depends(_staff)]

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
