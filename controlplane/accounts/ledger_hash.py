"""One number for all that the ledger says. Called by the admin API and by `billing.restoring`.

Two databases have the same hash when the same was charged, paid and given, whoever wrote it when
and under which ids: a restored database is held against the lost one with it.
"""

import hashlib
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

# What a transaction is, without its own id and its time: both are made anew when it is written
# again. What it corrects is told by the same words.
_HEAD = (
    "{0}.kind, {0}.tenant_id, {0}.request_id, {0}.idempotency_key, {0}.interval_id, {0}.from_ms,"
    " {0}.to_ms, {0}.rate_p_per_hour, {0}.reason, {0}.author"
)
# One statement, so one snapshot. A debit takes given money first, and which of two requests took
# the last of it depends on which was settled first: of debits it is summed up by account.
_DIGESTS = text(f"""
    SELECT 'transaction' AS part, sha256(convert_to(jsonb_build_array(
        {_HEAD.format("t")},
        CASE WHEN c.id IS NOT NULL THEN jsonb_build_array({_HEAD.format("c")}) END,
        (
            SELECT jsonb_agg(entry ORDER BY entry)
            FROM ledger_entries e
            JOIN accounts a ON a.id = e.account_id,
            jsonb_build_array(
                a.kind, a.tenant_id, e.amount_p, CASE WHEN e.amount_p > 0 THEN e.granted_p END,
                e.token_class, e.tokens, e.rate_p
            ) AS entry
            WHERE e.transaction_id = t.id
        )
    )::text, 'UTF8')) AS digest
    FROM ledger_transactions t
    LEFT JOIN ledger_transactions c ON c.id = t.corrects_id
    UNION ALL
    SELECT 'account', sha256(convert_to(jsonb_build_array(
        a.kind, a.tenant_id, sum(e.amount_p), sum(e.granted_p)
    )::text, 'UTF8'))
    FROM ledger_entries e
    JOIN accounts a ON a.id = e.account_id
    GROUP BY a.kind, a.tenant_id
    ORDER BY part, digest
""")
_FETCHED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class LedgerHash:
    """SHA-256 in hexadecimal over so many transactions and over all accounts' sums."""

    sha256: str
    transactions: int


def ledger_hash(session: Session) -> LedgerHash:
    """Return the hash of the whole ledger.

    The database makes a digest of each transaction and sorts them, so memory here does not grow
    with the ledger.
    """
    whole = hashlib.sha256()
    transactions = 0
    found = session.execute(_DIGESTS, execution_options={"yield_per": _FETCHED_AT_ONCE})
    for part, digest in found:
        whole.update(part.encode())
        whole.update(digest)
        transactions += part == "transaction"
    return LedgerHash(whole.hexdigest(), transactions)
