"""Budgets of tenants, projects and keys; a settled request's hold is no longer kept."""

import sqlalchemy as sa
from alembic import op

from migrations import first_rules, rules

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _budgets()
    # What a usage row keeps of the hold, the database itself holds against the charge.
    op.add_column("usage_events", sa.Column("held_p", sa.BigInteger()))
    op.create_check_constraint(
        op.f("ck_usage_events_within_hold"), "usage_events", "charge_p <= held_p"
    )
    rules.drop("charges_beyond_holds")
    # Its usage row and its ledger transaction are the record of a settled request.
    op.execute("DELETE FROM holds WHERE state = 'settled'")
    _hold_states("state IN ('open', 'released')")
    rules.add(
        "wrong_budget_holds",
        "what a budget holds is the sum of the open holds in its scope (I4)",
        """
        SELECT b.id::text, b.held_p, coalesce(sum(h.amount_p), 0)
        FROM budgets b
        LEFT JOIN api_keys k ON k.tenant_id = b.tenant_id
            AND (b.scope = 'tenant' OR k.id = b.api_key_id OR k.project_id = b.project_id)
        LEFT JOIN holds h ON h.api_key_id = k.id AND h.state = 'open'
        GROUP BY b.id HAVING b.held_p <> coalesce(sum(h.amount_p), 0)
        """,
    )


def downgrade() -> None:
    rules.drop("wrong_budget_holds")
    rules.add(*next(rule for rule in first_rules.RULES if rule[0] == "charges_beyond_holds"))
    op.drop_column("usage_events", "held_p")
    _hold_states("state IN ('open', 'settled', 'released')")
    op.drop_table("budgets")


def _budgets() -> None:
    wide, moment = sa.Numeric(38, 0), sa.DateTime(timezone=True)
    op.create_table(
        "budgets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("project_id", sa.Uuid()),
        sa.Column("api_key_id", sa.Uuid()),
        sa.Column("period", sa.String(), nullable=False),
        *(sa.Column(name, wide, nullable=False) for name in ("limit_p", "spent_p", "held_p")),
        sa.Column("period_started_at", moment, nullable=False),
        sa.Column("thresholds", sa.ARRAY(sa.Integer()), nullable=False),
        *(
            sa.Column(name, moment, server_default=sa.text("now()"), nullable=False)
            for name in ("created_at", "changed_at")
        ),
        *_checks(),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_budgets_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["projects.tenant_id", "projects.id"],
            name=op.f("fk_budgets_tenant_id_project_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "api_key_id"],
            ["api_keys.tenant_id", "api_keys.id"],
            name=op.f("fk_budgets_tenant_id_api_key_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint(
            *("tenant_id", "project_id", "api_key_id", "period"),
            name="uq_budgets_scope_period",
            postgresql_nulls_not_distinct=True,
        ),
    )


def _checks() -> list[sa.CheckConstraint]:
    checks = {
        "scope": "scope IN ('tenant', 'project', 'key')",
        "period": "period IN ('day', 'month', 'total')",
        "scope_named": "(scope = 'project') = (project_id IS NOT NULL)"
        " AND (scope = 'key') = (api_key_id IS NOT NULL)",
        "not_negative": "limit_p >= 0 AND spent_p >= 0 AND held_p >= 0",
        "thresholds": "0 < ALL (thresholds) AND 100 >= ALL (thresholds)",
    }
    return [
        sa.CheckConstraint(check, name=op.f(f"ck_budgets_{name}")) for name, check in checks.items()
    ]


def _hold_states(check: str) -> None:
    op.drop_constraint(op.f("ck_holds_state"), "holds")
    op.create_check_constraint(op.f("ck_holds_state"), "holds", check)
