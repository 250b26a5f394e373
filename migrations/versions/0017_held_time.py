"""What runs holds its next minutes of money, as requests hold what they may cost."""

import sqlalchemy as sa
from alembic import op

from migrations import first_rules, rules

revision = "0017"
down_revision = "0015"

_TABLES = ("gpu_intervals", "volume_intervals")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(
            table, sa.Column("held_p", sa.Numeric(38, 0), nullable=False, server_default="0")
        )
        op.alter_column(table, "held_p", server_default=None)
        op.create_check_constraint(op.f(f"ck_{table}_held_not_negative"), table, "held_p >= 0")
        op.create_index(
            f"ix_{table}_held", table, ["tenant_id"], postgresql_where=sa.text("held_p > 0")
        )
    rules.add(
        "wrong_holds",
        "the held sum is that of open holds and of what is held for time ahead (I4)",
        """
        SELECT a.id::text, a.held_p, coalesce(h.sum_p, 0) + coalesce(t.sum_p, 0)
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(amount_p) AS sum_p FROM holds
            WHERE state = 'open' GROUP BY account_id
        ) h ON h.account_id = a.id LEFT JOIN (
            SELECT tenant_id, sum(held_p) AS sum_p FROM (
                SELECT tenant_id, held_p FROM gpu_intervals WHERE held_p > 0
                UNION ALL SELECT tenant_id, held_p FROM volume_intervals WHERE held_p > 0
            ) AS lives GROUP BY tenant_id
        ) t ON t.tenant_id = a.tenant_id
        WHERE a.held_p <> coalesce(h.sum_p, 0) + coalesce(t.sum_p, 0)
        """,
    )


def downgrade() -> None:
    rules.add(*next(rule for rule in first_rules.RULES if rule[0] == "wrong_holds"))
    for table in _TABLES:
        # Nobody knows of it any more: back with it.
        op.execute(f"""
            UPDATE accounts SET held_p = accounts.held_p - lives.held_p FROM (
                SELECT tenant_id, sum(held_p) AS held_p FROM {table}
                WHERE held_p > 0 GROUP BY tenant_id
            ) AS lives WHERE lives.tenant_id = accounts.tenant_id
        """)
        op.drop_index(f"ix_{table}_held", table)
        op.drop_constraint(op.f(f"ck_{table}_held_not_negative"), table)
        op.drop_column(table, "held_p")
