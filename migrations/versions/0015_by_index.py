"""What is posted and settled is joined row by row, however large the ledger and the shop are.

A session plans the statements of these functions once, for tables of that hour. A hash join reads
the whole of the other table, every transaction or every key there is, for the few rows at hand; a
nested loop over a copy of that table compares every pair.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_JOINS = ("enable_hashjoin", "enable_mergejoin", "enable_material")
_OFF = {
    "move_balances": _JOINS,  # sequential scans are off already
    "tell_usage": ("enable_seqscan", *_JOINS),
}
_JOINED = "JOIN ledger_transactions t ON t.id = posted.transaction_id"
# With an OFFSET it stays a query of its own, asked for each entry by its key.
_ASKED = """JOIN LATERAL (
            SELECT tenant_id, corrects_id FROM ledger_transactions
            WHERE id = posted.transaction_id OFFSET 0
        ) t ON true"""


def upgrade() -> None:
    _reword(_JOINED, _ASKED)
    for function, settings in _OFF.items():
        for setting in settings:
            op.execute(f"ALTER FUNCTION {function}() SET {setting} = off")


def downgrade() -> None:
    for function, settings in _OFF.items():
        for setting in settings:
            op.execute(f"ALTER FUNCTION {function}() RESET {setting}")
    _reword(_ASKED, _JOINED)


def _reword(old: str, new: str) -> None:
    """Say a part of `move_balances` in other words."""
    connection = op.get_bind()
    told = connection.scalar(sa.text("SELECT pg_get_functiondef('move_balances'::regproc)"))
    assert old in told
    # As the driver wants it: percent signs doubled.
    connection.exec_driver_sql(told.replace(old, new).replace("%", "%%"))
