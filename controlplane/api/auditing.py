"""What the audit log is told of a mutating request. Called by `contract` in its transaction.

Never a secret: a field that may hold one is told by its name alone, and answers are not told at
all but for the id of what was made.
"""

import json
import uuid
from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request

from controlplane.audit.chain import record

# Parts of names of fields whose values are not for the log.
_SECRET: Final = ("key", "token", "secret", "password", "signature", "credential", "env")
_TENANTS: Final = "/admin/v1/tenants"
_MAX_CHARS = 500
_MAX_ITEMS = 50
_MAX_DEPTH = 5


def note(session: Session, request: Request, action: str, body: bytes, content: bytes) -> None:
    """Record that the caller of `request` did `action`, answered with `content`."""
    made = _object(content)
    subject = request.url.path
    if request.method == "POST" and isinstance(made.get("id"), str):
        subject = f"{subject}/{made['id']}"
    details: dict[str, object] = {"method": request.method}
    if request.url.query:
        details["query"] = redacted(dict(request.query_params))
    if body:
        details["body"] = redacted(_object(body))
    caller = request.state.caller
    record(
        session,
        tenant_id=caller.tenant_id or _concerned(request, made),
        actor=caller.actor,
        action=action,
        subject=subject,
        details=details,
    )


def redacted(value: Any, depth: int = 0) -> Any:
    """Return `value` without what may be secret, and no longer than a log wants it."""
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {
            str(name)[:_MAX_CHARS]: "[redacted]"
            if _is_secret(str(name))
            else redacted(it, depth + 1)
            for name, it in list(value.items())[:_MAX_ITEMS]
        }
    if isinstance(value, list):
        return [redacted(it, depth + 1) for it in value[:_MAX_ITEMS]]
    if isinstance(value, str):
        return value[:_MAX_CHARS]
    return value


def _is_secret(name: str) -> bool:
    return any(part in name.lower() for part in _SECRET)


def _concerned(request: Request, made: dict[str, Any]) -> uuid.UUID | None:
    """Return the tenant that the staff's request is about; None if it is about none."""
    told = request.path_params.get("tenant_id") or made.get("tenant_id")
    if request.url.path == _TENANTS:
        told = made.get("id")
    try:
        return uuid.UUID(str(told)) if told else None
    except ValueError:
        return None


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
