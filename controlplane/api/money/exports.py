"""Admin route of the exported ledger. It streams, so it is as long as the ledger and needs no
memory for it."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from controlplane.accounts import ledger
from controlplane.accounts.export import Format, export
from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db, OfTenant, State

router = APIRouter(prefix="/admin/v1/ledger", tags=["books"], route_class=Contract)

_MEDIA_TYPES = {"beancount": "text/plain; charset=utf-8", "csv": "text/csv; charset=utf-8"}


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}, "text/csv": {}}}},
)
def export_ledger(
    state: State,
    session: Db,
    admin: Admin,
    form: Annotated[
        Format,
        Query(
            alias="format",
            description="beancount: for accountants, checks itself; csv: an entry a line",
        ),
    ] = "beancount",
    tenant_id: OfTenant = None,
) -> StreamingResponse:
    """Export the ledger, or one tenant's part of it, as it is at one moment.

    Amounts have all 12 decimals. In Beancount's format the file ends with each account's balance,
    which `bean-check` proves.
    """
    if tenant_id is not None:
        ledger.balance(session, tenant_id=tenant_id)  # a tenant that is not there is a 404

    def pieces() -> Iterator[str]:
        # The request's own session ends before the answer leaves.
        with state.sessions.begin() as snapshot:
            snapshot.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield from export(snapshot, form=form, tenant_id=tenant_id)

    return StreamingResponse(pieces(), media_type=_MEDIA_TYPES[form])
