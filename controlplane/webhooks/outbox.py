"""Where notices to tenants begin. Called in the transaction that they tell of."""

import logging
import uuid
from collections.abc import Mapping

from sqlalchemy.orm import Session

_log = logging.getLogger(__name__)


def notify(
    session: Session, *, tenant_id: uuid.UUID, kind: str, body: Mapping[str, object], once: str
) -> None:
    """Tell a tenant; the same `once` is told once, for ever."""
    _log.info("notice", extra={"tenant_id": str(tenant_id), "kind": kind, "once": once})
