"""What goes on from another: keys that took over keep its budgets, engines tell what they were
given of an answer."""

import sqlalchemy as sa
from alembic import op

from migrations import rules

revision = "0018"
down_revision = "0017"

_RULE = (
    "wrong_budget_holds",
    "what a budget holds is the sum of the open holds in its scope (I4)",
)
_QUERY = """
    SELECT b.id::text, b.held_p, coalesce(sum(h.amount_p), 0)
    FROM budgets b
    LEFT JOIN api_keys k ON k.tenant_id = b.tenant_id
        AND (b.scope = 'tenant' OR {key} = b.api_key_id OR k.project_id = b.project_id)
    LEFT JOIN holds h ON h.api_key_id = k.id AND h.state = 'open'
    GROUP BY b.id HAVING b.held_p <> coalesce(sum(h.amount_p), 0)
"""


def upgrade() -> None:
    op.add_column(
        "witnessed_attempts",
        sa.Column("resumed_tokens", sa.BigInteger(), server_default="0", nullable=False),
    )
    # Keys that took over before have begun lines of their own: their budgets name them.
    op.add_column("api_keys", sa.Column("first_id", sa.Uuid()))
    op.create_foreign_key(
        op.f("fk_api_keys_first_id"), "api_keys", "api_keys", ["first_id"], ["id"]
    )
    rules.add(*_RULE, _QUERY.format(key="coalesce(k.first_id, k.id)"))


def downgrade() -> None:
    rules.add(*_RULE, _QUERY.format(key="k.id"))
    # What later keys of a line hold is no longer part of its budget.
    op.execute("""
        UPDATE budgets b SET held_p = (
            SELECT coalesce(sum(h.amount_p), 0) FROM holds h
            WHERE h.api_key_id = b.api_key_id AND h.state = 'open')
        WHERE b.scope = 'key'
    """)
    op.drop_column("api_keys", "first_id")
    op.drop_column("witnessed_attempts", "resumed_tokens")
