"""The second wall between tenants: PostgreSQL itself shows a tenant's request its own rows alone.

The REST API proves the caller, then confines the request's transaction. From there on a query that
forgot its tenant finds nothing of others and writes nothing of theirs. It is a wall against our own
mistakes: who can send any SQL can step back over it. Called by `api.contract`.
"""

import uuid

from sqlalchemy import func, select
from sqlalchemy.orm import Session

TENANT_ROLE = "flashplane_tenant"
TENANT_SETTING = "flashplane.tenant_id"


def confine(session: Session, *, tenant_id: uuid.UUID) -> None:
    """Let the rest of this transaction see and write a tenant's rows alone, with few rights."""
    session.flush()
    session.execute(
        select(
            func.set_config(TENANT_SETTING, str(tenant_id), True),
            func.set_config("role", TENANT_ROLE, True),
        )
    )
