"""Checks the books: whether every sum says the same as what it is the sum of.

Called by the admin API and by tests. One statement, so one snapshot: right while money moves.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from controlplane.billing.gpu import rules as gpu_rules

# Each selects what breaks the rule: whose, what is written, what it should be.
_RULES = {
    "all entries sum to zero": """
        SELECT 'ledger' AS subject, sum(amount_p) AS found, 0 AS expected
        FROM ledger_entries HAVING sum(amount_p) <> 0""",
    "every transaction's entries sum to zero": """
        SELECT transaction_id::text, sum(amount_p), 0
        FROM ledger_entries GROUP BY transaction_id HAVING sum(amount_p) <> 0""",
    "a balance is the sum of its entries": """
        SELECT a.id::text, a.balance_p, coalesce(e.sum_p, 0)
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(amount_p) AS sum_p FROM ledger_entries GROUP BY account_id
        ) e ON e.account_id = a.id
        WHERE a.balance_p <> coalesce(e.sum_p, 0)""",
    "the held sum is the sum of open holds": """
        SELECT a.id::text, a.held_p, coalesce(h.sum_p, 0)
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(amount_p) AS sum_p FROM holds
            WHERE state = 'open' GROUP BY account_id
        ) h ON h.account_id = a.id
        WHERE a.held_p <> coalesce(h.sum_p, 0)""",
    "a tenant's balance is top-ups less usage x price, GPU time and storage": """
        SELECT a.id::text, a.balance_p,
               coalesce(t.sum_p, 0) - coalesce(u.sum_p, 0) - coalesce(g.sum_p, 0)
        FROM accounts a
        LEFT JOIN (
            SELECT e.account_id, sum(e.amount_p) AS sum_p
            FROM ledger_entries e JOIN ledger_transactions l ON l.id = e.transaction_id
            WHERE l.kind NOT IN ('charge', 'gpu_time', 'storage') GROUP BY e.account_id
        ) t ON t.account_id = a.id
        LEFT JOIN (
            SELECT e.tenant_id, sum(e.hit_tokens * p.hit_rate_p + e.miss_tokens * p.miss_rate_p
                                    + e.output_tokens * p.output_rate_p) AS sum_p
            FROM usage_events e JOIN price_versions p ON p.id = e.price_version_id
            GROUP BY e.tenant_id
        ) u ON u.tenant_id = a.tenant_id
        LEFT JOIN (
            SELECT tenant_id, sum(billed_p) AS sum_p FROM (
                SELECT tenant_id, billed_p FROM gpu_intervals
                UNION ALL SELECT tenant_id, billed_p FROM volume_intervals
            ) AS intervals GROUP BY tenant_id
        ) g ON g.tenant_id = a.tenant_id
        WHERE a.kind = 'tenant' AND a.balance_p
            <> coalesce(t.sum_p, 0) - coalesce(u.sum_p, 0) - coalesce(g.sum_p, 0)""",
    **gpu_rules.RULES,
    "a usage row's charge is what the ledger moved": """
        SELECT u.request_id::text, u.charge_p, coalesce(l.sum_p, 0)
        FROM usage_events u LEFT JOIN (
            SELECT t.request_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE e.amount_p > 0 GROUP BY t.request_id
        ) l ON l.request_id = u.request_id
        WHERE u.charge_p <> coalesce(l.sum_p, 0)""",
    "every charge has its usage row": """
        SELECT t.request_id::text, 1, 0
        FROM ledger_transactions t LEFT JOIN usage_events u ON u.request_id = t.request_id
        WHERE t.kind = 'charge' AND u.request_id IS NULL""",
    "no usage row is rejected": """
        SELECT request_id::text, 1, 0 FROM usage_staging WHERE rejected IS NOT NULL""",
}
_MOST_TOLD = 100
_VIOLATIONS = " UNION ALL ".join(
    f"(SELECT '{rule.replace(chr(39), chr(39) * 2)}', subject, found::text, expected::text"
    f" FROM ({query} LIMIT {_MOST_TOLD}) AS broken(subject, found, expected))"
    for rule, query in _RULES.items()
)
_SUMS = """
    SELECT (SELECT coalesce(sum(amount_p), 0) FROM ledger_entries),
           (SELECT coalesce(sum(held_p), 0) FROM accounts),
           (SELECT count(*) FROM holds WHERE state = 'open'),
           (SELECT count(*) FROM usage_staging WHERE rejected IS NULL),
           (SELECT count(*) FROM usage_staging WHERE rejected IS NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class BooksReport:
    """The state of the books. `violations` is empty when they are exact."""

    violations: list[str]
    entries_sum_p: int
    held_p: int
    open_holds: int
    staged: int
    rejected: int

    @property
    def ok(self) -> bool:
        return not self.violations


def check_books(session: Session) -> BooksReport:
    """Check every rule on one snapshot. Reads the whole ledger: for people, not for dashboards."""
    violations = [
        f"{rule}: {subject} has {found}, expected {expected}"
        for rule, subject, found, expected in session.execute(text(_VIOLATIONS))
    ]
    entries_sum_p, held_p, open_holds, staged, rejected = session.execute(text(_SUMS)).one()
    return BooksReport(
        violations=violations,
        entries_sum_p=int(entries_sum_p),
        held_p=int(held_p),
        open_holds=open_holds,
        staged=staged,
        rejected=rejected,
    )
