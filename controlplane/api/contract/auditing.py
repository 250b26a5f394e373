"""What the audit log is told of a mutating request. Called by `contract` in its transaction.

What was sent is told, less what may tell of a person, see `audit.personal`, and what
`audit.redaction` finds secret. Answers, which may hold a new key, are not told but for the id of
what was made.
"""

import json
import uuid
from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request

from controlplane.audit.chain import record
from controlplane.audit.personal import impersonal

_TENANTS: Final = "/admin/v1/tenants"


def note(session: Session, request: Request, action: str, body: bytes, content: bytes) -> None:
    """Record that the caller of `request` did `action`, answered with `content`."""
    made = _object(content)
    caller = request.state.caller
    subject = request.url.path
    if caller.tenant_id is not None and "name" in request.path_params:
        # Named by the tenant, maybe after a person. What the staff names is of the platform.
        subject = subject.rpartition("/")[0]
    if request.method == "POST" and isinstance(made.get("id"), str):
        subject = f"{subject}/{made['id']}"
    details: dict[str, object] = {"method": request.method}
    if request.url.query:
        details["query"] = impersonal(request.query_params)
    if body:
        details["body"] = impersonal(_object(body))
    record(
        session,
        tenant_id=caller.tenant_id or _concerned(request, made),
        actor=caller.actor,
        action=action,
        subject=subject,
        details=details,
    )


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
