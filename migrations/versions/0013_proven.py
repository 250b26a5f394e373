"""Proves of old rows what revision 0004 asks of the ledger, while everybody reads and writes.

A revision of its own because a lock lasts until its transaction ends: asking takes a lock that
stops everything, proving reads the whole ledger under one that stops nobody.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

_ASKED = {
    "ledger_transactions": (
        "ck_ledger_transactions_kind",
        "ck_ledger_transactions_told",
        "ck_ledger_transactions_corrects",
        "fk_ledger_transactions_corrects_id",
    ),
    "ledger_entries": ("ck_ledger_entries_granted_is_part",),
}


def upgrade() -> None:
    for table, constraints in _ASKED.items():
        for name in constraints:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    """Nothing: what has been proven stays true."""
