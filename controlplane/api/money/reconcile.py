"""Admin routes of reconciliation: what gateways billed, the ledger charged and engines saw."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, page
from controlplane.api.schemas import Body, Moment, Name, Page, Row
from controlplane.billing.reconcile import report
from controlplane.billing.reconcile.models import Finding
from controlplane.billing.reconcile.report import Reconciliation

router = APIRouter(prefix="/admin/v1/reconcile", tags=["books"], route_class=Contract)

DAY = timedelta(days=1)


class TokensOut(Row):
    hit_tokens: int
    miss_tokens: int
    output_tokens: int


class JournalOut(Row):
    """How far an engine's journal has been read; `kept` false: the engine keeps none."""

    replica: str
    kept: bool
    read_until: datetime


class ReconciliationOut(BaseModel):
    """Three witnesses of the same requests. Billed less than witnessed is what clients who left
    were not charged for; `ok` means that nothing unexplained was found."""

    ok: bool
    since: datetime
    until: datetime
    requests: int = Field(description="settled requests whose engines have been heard")
    billed: TokensOut = Field(description="what gateways' journals say")
    charged: TokensOut = Field(description="what the ledger moved; free classes are not in it")
    witnessed: TokensOut = Field(description="what engines' journals say")
    waiting: int = Field(description="attempts whose requests have not been judged yet")
    findings: dict[str, int] = Field(description="unexplained ones by kind")
    journals: list[JournalOut]

    @classmethod
    def of(cls, found: Reconciliation, since: datetime, until: datetime) -> Self:
        return cls(
            ok=found.ok,
            since=since,
            until=until,
            requests=found.requests,
            billed=TokensOut.model_validate(found.billed),
            charged=TokensOut.model_validate(found.charged),
            witnessed=TokensOut.model_validate(found.witnessed),
            waiting=found.waiting,
            findings=found.findings,
            journals=[JournalOut.model_validate(it) for it in found.journals],
        )


class FindingOut(BaseModel):
    request_id: uuid.UUID
    kind: str
    replica: str | None
    billed: TokensOut
    witnessed: TokensOut
    found_at: datetime
    explanation: str | None
    explained_by: str | None

    @classmethod
    def of(cls, finding: Finding) -> Self:
        return cls(
            request_id=finding.request_id,
            kind=finding.kind,
            replica=finding.replica,
            billed=_tokens(finding, "billed"),
            witnessed=_tokens(finding, "witnessed"),
            found_at=finding.found_at,
            explanation=finding.explanation,
            explained_by=finding.explained_by,
        )


class Explanation(Body):
    explanation: Name = Field(examples=["engine upgraded in mid-request; refunded"])


@router.get("")
def get_reconciliation(
    session: Db,
    admin: Admin,
    since: Annotated[Moment | None, Query(description="null: a day before `until`")] = None,
    until: Annotated[Moment | None, Query(description="null: now")] = None,
) -> ReconciliationOut:
    """Compare what gateways billed, the ledger charged and engines saw."""
    until = until or datetime.now(UTC)
    since = since or until - DAY
    return ReconciliationOut.of(report.report(session, since=since, until=until), since, until)


@router.get("/findings")
def list_findings(
    session: Db,
    admin: Admin,
    explained: Annotated[bool | None, Query(description="only such; null: all")] = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> Page[FindingOut]:
    """List requests whose bill and whose engines differ, newest first."""
    found = report.findings(session, explained=explained, after=after, limit=limit + 1)
    return page(found, limit, show=FindingOut.of, cursor=lambda finding: finding.request_id)


@router.post("/findings/{request_id}/explanation", status_code=201)
def explain_finding(
    request_id: uuid.UUID, body: Explanation, session: Db, admin: Admin
) -> FindingOut:
    """Say why a finding is what it is, once; money that is owed back is a refund of its own."""
    return FindingOut.of(
        report.explain(
            session, request_id, explanation=body.explanation, author=f"admin key {admin.name}"
        )
    )


def _tokens(finding: Finding, whose: str) -> TokensOut:
    return TokensOut(
        hit_tokens=getattr(finding, f"{whose}_hit_tokens"),
        miss_tokens=getattr(finding, f"{whose}_miss_tokens"),
        output_tokens=getattr(finding, f"{whose}_output_tokens"),
    )
