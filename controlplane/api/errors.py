"""Turns whatever goes wrong in a route into OpenAI's error shape. Installed by `app`."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc
from starlette.exceptions import HTTPException

from controlplane.errors import (
    ControlPlaneError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unavailable,
    UnprocessableRequest,
)

# What SQLAlchemy raises when the server is gone, starting, or has no connection to spare.
_OUTAGES = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


def install(app: FastAPI) -> None:
    """Give the app its error answers."""
    app.add_exception_handler(ControlPlaneError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for outage in _OUTAGES:
        app.add_exception_handler(outage, _database_down)
    app.add_exception_handler(Exception, _defect)


def _answer(error: ControlPlaneError, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        error.body(), status_code=error.status, headers={**error.headers(), **(headers or {})}
    )


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ControlPlaneError)
    return _answer(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Tell where and why; never what was sent, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "json_invalid":
        return _answer(InvalidRequest("The body is not JSON."))
    why = str(first["msg"]).removeprefix("Value error, ")  # pydantic's word for our own checks
    message = f"{where}: {why}" if where else why
    return _answer(UnprocessableRequest(message, param=where or None))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return _answer(NotFound(f"There is nothing at {request.url.path}."))
    if error.status_code == 405:
        return _answer(
            MethodNotAllowed(f"{request.url.path} does not take {request.method}."), headers
        )
    return _answer(InvalidRequest(str(error.detail)), headers)


async def _database_down(request: Request, error: Exception) -> JSONResponse:
    return _answer(Unavailable("The database is unavailable.", code="database_unavailable"))


async def _defect(request: Request, error: Exception) -> JSONResponse:
    return _answer(InternalError("Something went wrong here; it has been logged."))
