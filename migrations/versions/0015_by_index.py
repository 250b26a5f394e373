"""What is posted and settled is joined row by row, however large the ledger and the shop are.

A session plans the statements of these functions once, for tables of that hour. A hash join reads
the whole of the other table, every transaction or every key there is, for the few rows at hand; a
nested loop over a copy of that table compares every pair.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

_JOINS = ("enable_hashjoin", "enable_mergejoin", "enable_material")
_OFF = {
    "move_balances": _JOINS,  # sequential scans are off already
    "tell_usage": ("enable_seqscan", *_JOINS),
}


def upgrade() -> None:
    for function, settings in _OFF.items():
        for setting in settings:
            op.execute(f"ALTER FUNCTION {function}() SET {setting} = off")


def downgrade() -> None:
    for function, settings in _OFF.items():
        for setting in settings:
            op.execute(f"ALTER FUNCTION {function}() RESET {setting}")
