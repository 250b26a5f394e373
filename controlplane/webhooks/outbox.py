"""Puts notices out for delivery, in the transaction of what they tell of."""

import uuid
from collections.abc import Mapping

from sqlalchemy.orm import Session


def notify(
    session: Session, *, tenant_id: uuid.UUID, kind: str, body: Mapping[str, object], once: str
) -> None:
    """Tell a tenant's endpoints that something happened; the same `once` is told once."""
