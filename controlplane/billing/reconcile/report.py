"""What reconciliation has found, for people. Called by the admin API.

Three sums of the same tokens: what gateways billed, what the ledger charged, what engines wrote
down. They are of settled requests whose engines have been heard, so all three are of the same set.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from controlplane.billing.reconcile.models import EngineJournal, Finding, WitnessedAttempt
from controlplane.errors import Conflict, NotFound

# `seen` folds attempts as `verdict.witnessed` does: the first prompt that was read, the longest
# output.
_SUMS = text("""
    WITH seen AS (
        SELECT request_id,
               (array_agg(hit_tokens ORDER BY started_at)
                   FILTER (WHERE hit_tokens + miss_tokens > 0))[1] AS hit_tokens,
               (array_agg(miss_tokens ORDER BY started_at)
                   FILTER (WHERE hit_tokens + miss_tokens > 0))[1] AS miss_tokens,
               max(output_tokens) AS output_tokens
        FROM witnessed_attempts
        WHERE ended_at >= :since AND ended_at < :until AND compared_at IS NOT NULL
        GROUP BY request_id
    ), matched AS (
        SELECT u.request_id, u.hit_tokens, u.miss_tokens, u.output_tokens,
               coalesce(seen.hit_tokens, 0) AS seen_hit,
               coalesce(seen.miss_tokens, 0) AS seen_miss,
               seen.output_tokens AS seen_output
        FROM usage_events u JOIN seen USING (request_id)
    ), charged AS (
        SELECT sum(e.tokens) FILTER (WHERE e.token_class = 'hit') AS hit_tokens,
               sum(e.tokens) FILTER (WHERE e.token_class = 'miss') AS miss_tokens,
               sum(e.tokens) FILTER (WHERE e.token_class = 'output') AS output_tokens
        FROM matched JOIN ledger_transactions t USING (request_id)
        JOIN ledger_entries e ON e.transaction_id = t.id
    )
    SELECT count(*), coalesce(sum(hit_tokens), 0), coalesce(sum(miss_tokens), 0),
           coalesce(sum(output_tokens), 0),
           coalesce((SELECT hit_tokens FROM charged), 0),
           coalesce((SELECT miss_tokens FROM charged), 0),
           coalesce((SELECT output_tokens FROM charged), 0),
           coalesce(sum(seen_hit), 0), coalesce(sum(seen_miss), 0), coalesce(sum(seen_output), 0)
    FROM matched
""")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One witness's sums."""

    hit_tokens: int
    miss_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The state of reconciliation. Free classes of tokens are not in `charged`: nothing moved.

    Attributes:
        requests: settled requests in the span whose engines have been heard.
        waiting: attempts whose requests have not been judged yet.
        findings: unexplained findings of the span by kind.
    """

    requests: int
    billed: Tokens
    charged: Tokens
    witnessed: Tokens
    waiting: int
    findings: dict[str, int]
    journals: Sequence[EngineJournal]

    @property
    def ok(self) -> bool:
        return not self.findings


def report(session: Session, *, since: datetime, until: datetime) -> Reconciliation:
    """Return what is known of the requests whose attempts ended from `since` until `until`."""
    sums = session.execute(_SUMS, {"since": since, "until": until}).one()
    requests, *tokens = (int(it) for it in sums)
    billed, charged, seen = (Tokens(*tokens[start : start + 3]) for start in (0, 3, 6))
    kinds = session.execute(
        select(Finding.kind, func.count().label("count"))
        .where(Finding.found_at >= since, Finding.found_at < until, Finding.explanation.is_(None))
        .group_by(Finding.kind)
        .order_by(Finding.kind)
    )
    waiting = session.scalar(
        select(func.count())
        .select_from(WitnessedAttempt)
        .where(WitnessedAttempt.compared_at.is_(None))
    )
    journals = session.scalars(select(EngineJournal).order_by(EngineJournal.replica)).all()
    found = {kind: int(count) for kind, count in kinds}
    return Reconciliation(requests, billed, charged, seen, waiting or 0, found, journals)


def findings(
    session: Session, *, explained: bool | None, after: uuid.UUID | None, limit: int
) -> list[Finding]:
    """Return findings, the newest request first, those older than the request `after`."""
    query = select(Finding).order_by(Finding.request_id.desc()).limit(limit)
    if explained is not None:
        query = query.where(Finding.explanation.is_not(None) == explained)
    if after is not None:
        query = query.where(Finding.request_id < after)
    return list(session.scalars(query))


def explain(session: Session, request_id: uuid.UUID, *, explanation: str, author: str) -> Finding:
    """Say why a finding is what it is; it then counts as dealt with. Said once.

    Raises:
        NotFound: there is no such finding.
        Conflict: it has been explained.
    """
    finding = session.get(Finding, request_id, with_for_update=True)
    if finding is None:
        raise NotFound(f"There is no finding of request {request_id}.")
    if finding.explanation is not None:
        raise Conflict(f"{finding.explained_by} has explained this finding.")
    finding.explanation, finding.explained_by = explanation, author
    session.flush()
    return finding
