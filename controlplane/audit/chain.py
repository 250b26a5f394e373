"""Records of what was done. Called by the REST API around every mutating route."""

import uuid
from collections.abc import Mapping

from sqlalchemy.orm import Session


def record(
    session: Session,
    *,
    tenant_id: uuid.UUID | None,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object],
) -> None:
    """Append a record in the caller's transaction."""
