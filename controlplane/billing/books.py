"""Checks the books: whether every sum says the same as what it is the sum of.

Called by the admin API and by tests. The rules are views of the database, in the schema `books`: a
person reads them there, and a migration that adds one has added it to the check.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

_MOST_TOLD = 100
# A view selects what breaks its rule: whose, what is written, what it should be. Its comment is the
# rule in words. All of them make one statement, so one snapshot: right while money moves.
_ALL_RULES = text(f"""
    SELECT string_agg(format(
        '(SELECT %L, subject::text, found::text, expected::text FROM books.%I LIMIT {_MOST_TOLD})',
        coalesce(obj_description(oid), relname), relname
    ), ' UNION ALL ' ORDER BY relname)
    FROM pg_class WHERE relnamespace = 'books'::regnamespace AND relkind = 'v'
""")
_SUMS = text("""
    SELECT (SELECT coalesce(sum(amount_p), 0) FROM ledger_entries),
           (SELECT coalesce(sum(held_p), 0) FROM accounts),
           (SELECT count(*) FROM holds WHERE state = 'open'),
           (SELECT count(*) FROM usage_staging WHERE rejected IS NULL),
           (SELECT count(*) FROM usage_staging WHERE rejected IS NOT NULL)
""")


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
    rules = session.scalar(_ALL_RULES)
    assert rules is not None, "the database has no rules of the books"
    # No text(): a rule's words may hold a colon. The driver wants percent signs doubled.
    found = session.connection().exec_driver_sql(rules.replace("%", "%%"))
    violations = [
        f"{rule}: {subject} has {written}, expected {expected}"
        for rule, subject, written, expected in found
    ]
    entries_sum_p, held_p, open_holds, staged, rejected = session.execute(_SUMS).one()
    return BooksReport(
        violations=violations,
        entries_sum_p=int(entries_sum_p),
        held_p=int(held_p),
        open_holds=open_holds,
        staged=staged,
        rejected=rejected,
    )
