"""Deployments, GPU prices, and GPU time in the ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

_LEDGER = "ledger_transactions"


def upgrade() -> None:
    _prices()
    _deployments()
    _catalogue()
    _intervals()
    _ledger()


def downgrade() -> None:
    """Raises: IntegrityError, when the ledger holds GPU time, which revision 0002 cannot say."""
    op.drop_constraint(op.f("uq_ledger_transactions_interval_id_to_ms"), _LEDGER)
    for name in ("gpu_time_forward", "gpu_time_explained", "kind"):
        op.drop_constraint(op.f(f"ck_ledger_transactions_{name}"), _LEDGER)
    op.create_check_constraint(
        op.f("ck_ledger_transactions_kind"), _LEDGER, "kind IN ('top_up', 'charge')"
    )
    for name in ("interval_id", "from_ms", "to_ms", "rate_p_per_hour"):
        op.drop_column(_LEDGER, name)
    for table in ("gpu_intervals", "gpu_configurations", "deployments", "gpu_price_versions"):
        op.drop_table(table)


def _required(name: str, type_: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, type_, nullable=False)


def _moment(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> sa.Column:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def _prices() -> None:
    op.create_table(
        "gpu_price_versions",
        _required("id", sa.Uuid()),
        _required("configuration", sa.String()),
        _required("kind", sa.String()),
        _required("rate_p_per_hour", sa.BigInteger()),
        _moment("effective_from", nullable=False),
        _now("created_at"),
        sa.CheckConstraint(
            "kind IN ('on_demand', 'spot')", name=op.f("ck_gpu_price_versions_kind")
        ),
        sa.CheckConstraint("rate_p_per_hour >= 0", name=op.f("ck_gpu_price_versions_rate")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpu_price_versions")),
        sa.UniqueConstraint(
            "configuration",
            "kind",
            "effective_from",
            name=op.f("uq_gpu_price_versions_configuration_kind_effective_from"),
        ),
    )
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON gpu_price_versions
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)


def _deployments() -> None:
    op.create_table(
        "deployments",
        _required("id", sa.Uuid()),
        sa.Column("tenant_id", sa.Uuid()),
        _required("namespace", sa.String()),
        _required("name", sa.String()),
        _required("path", sa.String()),
        _required("managed", sa.String()),
        _required("state", sa.String()),
        _required("spec", JSONB()),
        _required("generation", sa.BigInteger()),
        _required("out_of_funds", sa.Boolean()),
        _required("status", JSONB()),
        _required("observed_generation", sa.BigInteger()),
        sa.Column("refusal", sa.String()),
        _moment("refused_at"),
        sa.Column("idempotency_key", sa.String()),
        _now("created_at"),
        _now("changed_at"),
        _moment("deleted_at"),
        sa.CheckConstraint(
            "path IN ('serverless', 'dedicated', 'bare')", name=op.f("ck_deployments_path")
        ),
        sa.CheckConstraint(
            "state IN ('active', 'deleting', 'deleted')", name=op.f("ck_deployments_state")
        ),
        sa.CheckConstraint("managed IN ('row', 'external')", name=op.f("ck_deployments_managed")),
        sa.CheckConstraint(
            "managed = 'external' OR (path = 'serverless') = (tenant_id IS NULL)",
            name=op.f("ck_deployments_owner"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_deployments_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_index(op.f("ix_deployments_tenant_id"), "deployments", ["tenant_id"])
    op.create_index("ix_deployments_namespace_name", "deployments", ["namespace", "name"])
    op.create_index(
        "uq_deployments_name",
        "deployments",
        ["namespace", "name"],
        unique=True,
        postgresql_where=sa.text("state <> 'deleted'"),
    )
    op.create_index(
        "uq_deployments_idempotency_key",
        "deployments",
        ["tenant_id", "idempotency_key"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )


def _catalogue() -> None:
    op.create_table(
        "gpu_configurations",
        _required("id", sa.String()),
        _required("body", JSONB()),
        _required("position", sa.Integer()),
        sa.Column("free_replicas", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpu_configurations")),
    )


def _intervals() -> None:
    op.create_table(
        "gpu_intervals",
        _required("id", sa.Uuid()),
        _required("replica", sa.String()),
        _required("tenant_id", sa.Uuid()),
        sa.Column("deployment_id", sa.Uuid()),
        _required("deployment", sa.String()),
        _required("path", sa.String()),
        _required("configuration", sa.String()),
        _required("gpus", sa.Integer()),
        _required("spot", sa.Boolean()),
        _required("rate_p_per_hour", sa.BigInteger()),
        _moment("started_at", nullable=False),
        _moment("proven_until", nullable=False),
        _moment("ended_at"),
        _required("proven_ms", sa.BigInteger()),
        _required("billed_ms", sa.BigInteger()),
        _required("billed_p", sa.Numeric(38, 0)),
        _required("waived_p", sa.Numeric(38, 0)),
        sa.CheckConstraint("path IN ('dedicated', 'bare')", name=op.f("ck_gpu_intervals_path")),
        sa.CheckConstraint(
            "billed_ms BETWEEN 0 AND proven_ms", name=op.f("ck_gpu_intervals_billed_is_proven")
        ),
        sa.CheckConstraint("billed_p >= 0 AND waived_p >= 0", name=op.f("ck_gpu_intervals_sums")),
        sa.CheckConstraint(
            "billed_p + waived_p = div(rate_p_per_hour::numeric * billed_ms, 3600000)",
            name=op.f("ck_gpu_intervals_exact_sum"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_gpu_intervals_tenant_id")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_gpu_intervals_deployment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpu_intervals")),
    )
    op.create_index(op.f("ix_gpu_intervals_deployment_id"), "gpu_intervals", ["deployment_id"])
    op.create_index("ix_gpu_intervals_ended_at", "gpu_intervals", ["ended_at"])
    op.create_index(
        "ix_gpu_intervals_tenant_id_started_at", "gpu_intervals", ["tenant_id", "started_at"]
    )
    op.create_index(
        "ix_gpu_intervals_unbilled",
        "gpu_intervals",
        ["id"],
        postgresql_where=sa.text("billed_ms < proven_ms"),
    )


def _ledger() -> None:
    op.add_column(_LEDGER, sa.Column("interval_id", sa.Uuid()))
    for name in ("from_ms", "to_ms", "rate_p_per_hour"):
        op.add_column(_LEDGER, sa.Column(name, sa.BigInteger()))
    op.drop_constraint(op.f("ck_ledger_transactions_kind"), _LEDGER)
    checks = {
        "kind": "kind IN ('top_up', 'charge', 'gpu_time')",
        "gpu_time_explained": "(kind = 'gpu_time') = (interval_id IS NOT NULL)"
        " AND (interval_id IS NULL) = (from_ms IS NULL) AND (from_ms IS NULL) = (to_ms IS NULL)"
        " AND (from_ms IS NULL) = (rate_p_per_hour IS NULL)",
        "gpu_time_forward": "from_ms >= 0 AND from_ms < to_ms",
    }
    for name, check in checks.items():
        op.create_check_constraint(op.f(f"ck_ledger_transactions_{name}"), _LEDGER, check)
    op.create_unique_constraint(
        op.f("uq_ledger_transactions_interval_id_to_ms"), _LEDGER, ["interval_id", "to_ms"]
    )
