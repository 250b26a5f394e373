"""Budgets of tenants, projects and keys; a settled request's hold is no longer kept."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _budgets()
    # Its usage row and its ledger transaction are the record of a settled request.
    op.execute("DELETE FROM holds WHERE state = 'settled'")
    _hold_states("state IN ('open', 'released')")


def downgrade() -> None:
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
