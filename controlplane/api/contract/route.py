"""What every route of the REST API keeps, whatever it does. Every router is made of `Contract`.

A request is one transaction. Its caller is proven and the policy asked before the route runs.
A mutating one, besides:

- is done once for an `Idempotency-Key`: for a day the same request gets the same answer again, and
  `Idempotent-Replayed: true`. Answers that are errors are not kept: what failed may be tried again.
- obeys `If-Match`. A thing that can be changed under its own path is shown there with an `ETag`;
  with that in `If-Match` it is changed only if it still is as it was shown.
- leaves a line in the audit log.

All of that is committed together, before the answer leaves.
"""

import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from anyio import CancelScope, to_thread
from fastapi import APIRouter
from fastapi.routing import APIRoute
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from controlplane import row_security
from controlplane.api.contract import auditing, policy
from controlplane.api.contract.callers import Member, Nobody
from controlplane.api.contract.state import ApiState
from controlplane.errors import PreconditionFailed, StartupError, UnprocessableRequest
from controlplane.tenants import answers
from controlplane.tenants.answers import Sent

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

MUTATING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_CHANGING: Final = frozenset({"PUT", "PATCH", "DELETE"})
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
# What a thing tells of the world around it; it is the same thing when these have moved.
_OBSERVED: Final = frozenset(
    {
        *("last_used_at", "observed_generation", "phase", "refused_by_cluster", "stopped_because"),
        *("spent_usd", "spent_p", "held_usd", "held_p", "available_usd", "available_p"),
        "held_for",
        *("period_started_at", "renews_at"),
    }
)

_KEY_PARAMETER: Final[dict[str, object]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    "description": "the same key again, within a day, is the same request and gets the same answer",
}
_MATCH_PARAMETER: Final[dict[str, object]] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 200, "pattern": "^[!-~]+$"},
    "description": "the `ETag` the thing was shown with: change it only if it still is as shown",
}


class Contract(APIRoute):
    """A route that keeps the contract above."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **arguments: Any) -> None:
        super().__init__(path, endpoint, **arguments)
        taken = {it.alias for it in self.dependant.header_params}
        # Such a route remembers its keys for ever, itself.
        self.keeps_keys = "idempotency-key" in taken
        told = []
        if _methods(self) & MUTATING and not self.keeps_keys:
            told.append(_KEY_PARAMETER)
        if _methods(self) & _CHANGING:
            told.append(_MATCH_PARAMETER)
        if told:
            self.openapi_extra = {**(self.openapi_extra or {}), "parameters": told}

    def get_route_handler(self) -> Handler:
        self.render = super().get_route_handler()
        render = self.render

        async def serve(request: Request) -> Response:
            state: ApiState = request.app.state.api
            session = state.sessions()
            try:
                response = await _Visit(self, render, request, state, session).answer()
                await run_in_threadpool(session.commit)
                return response
            finally:
                with CancelScope(shield=True):
                    await run_in_threadpool(session.close)

        return serve


def readers(routers: Iterable[APIRouter]) -> dict[str, Contract]:
    """Return the routes that show a thing which can be changed under the same path."""
    routes = [it for router in routers for it in router.routes if isinstance(it, Contract)]
    changing = {it.path for it in routes if _methods(it) & _CHANGING}
    return {it.path: it for it in routes if "GET" in _methods(it) and it.path in changing}


def check(routers: Iterable[APIRouter]) -> None:
    """Refuse routes that nobody said who may call, or that do not keep the contract.

    Raises:
        StartupError: there is one; the message names it.
    """
    for router in routers:
        for route in router.routes:
            assert isinstance(route, APIRoute), route
            for method in _methods(route):
                if policy.roles(method, route.path) is None:
                    raise StartupError(f"{method} {route.path} is not in the policy.")
            if not isinstance(route, Contract):
                raise StartupError(f"{route.path} is no Contract: give its router the route_class.")


def _methods(route: APIRoute) -> set[str]:
    assert route.methods is not None
    return route.methods


class _Visit:
    """One request on its way through a route."""

    def __init__(
        self, route: Contract, render: Handler, request: Request, state: ApiState, session: Session
    ) -> None:
        self._route = route
        self._render = render
        self._request = request
        self._state = state
        self._session = session

    async def answer(self) -> Response:
        request = self._request
        request.state.session = self._session
        await to_thread.run_sync(self._admit, limiter=self._state.entrance)
        if request.method not in MUTATING:
            response = await self._render(request)
            self._tag(response)
            return response
        sent = await self._sent()
        if sent is not None:
            given = await run_in_threadpool(answers.given, self._session, self._pepper, sent)
            if given is not None:
                return _replay(*given)
        await self._match()
        response = await self._render(request)
        if response.status_code < 300:
            body = await request.body()
            await run_in_threadpool(self._finish, sent, body, response)
        self._tag(response)
        return response

    @property
    def _pepper(self) -> bytes:
        return self._state.prover.pepper

    def _admit(self) -> None:
        """Prove the caller, ask the policy, and have a connection from then on: a tenant's caller
        one that sees its own rows alone."""
        roles = policy.roles(self._request.method, self._route.path)
        assert roles is not None, "checked when the app was made"
        caller = self._state.prover.caller(self._session, self._request, roles)
        self._request.state.caller = caller
        self._session.connection()
        if isinstance(caller, Member):
            row_security.confine(self._session, tenant_id=caller.tenant_id)

    async def _sent(self) -> Sent | None:
        request = self._request
        key = request.headers.get("idempotency-key")
        if key is None or self._route.keeps_keys:
            return None
        if not _KEY.fullmatch(key):
            raise UnprocessableRequest(
                "A key is 1 to 200 printable ASCII characters.", param="Idempotency-Key"
            )
        caller = request.state.caller
        if isinstance(caller, Nobody):
            return None  # nobody's keys are anybody's
        return answers.sent(
            caller=f"{caller.actor} {caller.tenant_id}",
            method=request.method,
            path=request.url.path,
            key=key,
            query=request.url.query.encode(),
            body=await request.body(),
        )

    async def _match(self) -> None:
        """Let nobody else change the thing, and see that it is what the caller takes it for.

        Raises:
            PreconditionFailed: it is not.
        """
        reader = self._state.readers.get(self._route.path)
        if reader is None or self._request.method not in _CHANGING:
            return
        await run_in_threadpool(_lock, self._session, self._request.url.path)
        wanted = self._request.headers.get("if-match")
        if wanted is None or wanted.strip() == "*":
            return
        shown = await reader.render(self._request)
        if entity_tag(bytes(shown.body)) not in (it.strip() for it in wanted.split(",")):
            raise PreconditionFailed(
                "It has changed since it was shown: look again, then decide.", param="If-Match"
            )

    def _finish(self, sent: Sent | None, body: bytes, response: Response) -> None:
        self._session.flush()
        content = bytes(response.body)
        if sent is not None:
            answers.keep(self._session, self._pepper, sent, response.status_code, content)
        auditing.note(self._session, self._request, self._route.name, body, content)

    def _tag(self, response: Response) -> None:
        if self._route.path in self._state.readers and response.status_code == 200:
            response.headers["etag"] = entity_tag(bytes(response.body))


def entity_tag(body: bytes) -> str:
    """Return the `ETag` of a thing shown as `body`: of what can be changed, not of what moves."""
    try:
        shown = json.loads(body)
    except ValueError:
        shown = None
    if isinstance(shown, dict):
        settled = {
            name: value
            for name, value in shown.items()
            if name not in _OBSERVED and not (name == "status" and isinstance(value, dict))
        }
        body = json.dumps(settled, sort_keys=True).encode()
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _lock(session: Session, path: str) -> None:
    number = int.from_bytes(hashlib.sha256(b"path " + path.encode()).digest()[:8], signed=True)
    session.execute(select(func.pg_advisory_xact_lock(number)))


def _replay(status: int, body: bytes) -> Response:
    headers = {"idempotent-replayed": "true"}
    return Response(body, status, headers=headers, media_type="application/json")
