"""Admin routes of usage, the ledger and the check of the books."""

from fastapi import APIRouter

from controlplane.accounts import ledger
from controlplane.accounts.ledger_hash import ledger_hash
from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, AfterNumber, Db, Limit, OfTenant, page
from controlplane.api.money.statements import BooksOut, LedgerHashOut, LedgerLineOut, UsageOut
from controlplane.api.schemas import Page
from controlplane.billing.books import check_books
from controlplane.usage import events

router = APIRouter(prefix="/admin/v1", tags=["books"], route_class=Contract)


@router.get("/usage")
def list_usage(
    session: Db,
    admin: Admin,
    tenant_id: OfTenant = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[UsageOut]:
    """List settled requests, newest first."""
    found = events.listing(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=UsageOut.of, cursor=lambda event: event.request_id)


@router.get("/ledger")
def list_ledger(
    session: Db,
    admin: Admin,
    tenant_id: OfTenant = None,
    after: AfterNumber = None,
    limit: Limit = 100,
) -> Page[LedgerLineOut]:
    """List ledger entries, newest first: on one tenant's account, or on all accounts."""
    found = ledger.lines(session, tenant_id=tenant_id, after=after, limit=limit + 1)
    return page(found, limit, show=LedgerLineOut.of, cursor=lambda line: line.id)


@router.get("/ledger/hash")
def get_ledger_hash(session: Db, admin: Admin) -> LedgerHashOut:
    """Return one number for all that the ledger says: what was charged, paid and given.

    Ids and times of writing are not in it, so a database that was restored from a dump and its
    journals has the hash of the one that was lost. It reads the whole ledger: seconds per million
    transactions.
    """
    found = ledger_hash(session)
    return LedgerHashOut(sha256=found.sha256, transactions=found.transactions)


@router.get("/books")
def get_books(session: Db, admin: Admin) -> BooksOut:
    """Check that every sum in the books is what it is the sum of."""
    report = check_books(session)
    return BooksOut(
        ok=report.ok,
        violations=report.violations,
        entries_sum_p=str(report.entries_sum_p),
        held_p=str(report.held_p),
        open_holds=report.open_holds,
        staged=report.staged,
        rejected=report.rejected,
    )
