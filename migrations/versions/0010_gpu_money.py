"""Volumes, commitments, credits of interrupted spot time, warnings of funds."""

import sqlalchemy as sa
from alembic import op

from migrations import first_rules, gpu_rules, rules

revision = "0010"
down_revision = "0009"

_LEDGER = "ledger_transactions"
_EXPLAINED = (
    " = (interval_id IS NOT NULL)"
    " AND (interval_id IS NULL) = (from_ms IS NULL) AND (from_ms IS NULL) = (to_ms IS NULL)"
    " AND (from_ms IS NULL) = (rate_p_per_hour IS NULL)"
)
_EXACT = (
    "billed_p + waived_p = rated_p"
    " + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)"
)
_OLD_EXACT = "billed_p + waived_p = div(rate_p_per_hour::numeric * billed_ms, 3600000)"


def upgrade() -> None:
    _prices()
    _volumes()
    _funds()
    _commitments()
    _rates()
    op.add_column(
        "gpu_intervals",
        sa.Column("interrupted", sa.Boolean(), nullable=False, server_default="false"),
    )
    op.alter_column("gpu_intervals", "interrupted", server_default=None)
    op.add_column("gpu_intervals", sa.Column("credited_p", sa.Numeric(38, 0)))
    op.create_check_constraint(
        op.f("ck_gpu_intervals_credit_was_billed"),
        "gpu_intervals",
        "credited_p BETWEEN 0 AND billed_p",
    )
    op.create_index(
        "ix_gpu_intervals_unjudged",
        "gpu_intervals",
        ["id"],
        postgresql_where=sa.text("interrupted AND credited_p IS NULL"),
    )
    op.drop_constraint(op.f("ck_ledger_transactions_gpu_time_explained"), _LEDGER)
    op.create_check_constraint(
        op.f("ck_ledger_transactions_gpu_time_explained"),
        _LEDGER,
        "(kind IN ('gpu_time', 'storage'))" + _EXPLAINED,
    )
    for rule in (*gpu_rules.RULES, *gpu_rules.CHANGED):
        rules.add(*rule)


def downgrade() -> None:
    rules.drop(*(name for name, _, _ in gpu_rules.RULES))
    for rule in first_rules.RULES:
        if rule[0] in {name for name, _, _ in gpu_rules.CHANGED}:
            rules.add(*rule)
    op.drop_constraint(op.f("ck_ledger_transactions_gpu_time_explained"), _LEDGER)
    op.create_check_constraint(
        op.f("ck_ledger_transactions_gpu_time_explained"),
        _LEDGER,
        "(kind = 'gpu_time')" + _EXPLAINED,
        postgresql_not_valid=True,  # what was charged for storage stays
    )
    op.drop_index("ix_gpu_intervals_unjudged", "gpu_intervals")
    op.drop_constraint(op.f("ck_gpu_intervals_credit_was_billed"), "gpu_intervals")
    op.drop_column("gpu_intervals", "credited_p")
    op.drop_column("gpu_intervals", "interrupted")
    _old_rates()
    op.drop_table("commitment_dues")
    op.drop_table("commitments")
    op.drop_table("fund_states")
    op.drop_table("volume_intervals")
    op.drop_table("storage_price_versions")


def _prices() -> None:
    op.create_table(
        "storage_price_versions",
        _required("id", sa.Uuid()),
        _required("storage_class", sa.String()),
        _required("rate_p_per_gib_hour", sa.BigInteger()),
        _moment("effective_from", nullable=False),
        _now("created_at"),
        sa.CheckConstraint("rate_p_per_gib_hour >= 0", name=op.f("ck_storage_price_versions_rate")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_price_versions")),
        sa.UniqueConstraint(
            "storage_class",
            "effective_from",
            name=op.f("uq_storage_price_versions_storage_class_effective_from"),
        ),
    )


def _volumes() -> None:
    table = "volume_intervals"
    op.create_table(
        table,
        _required("id", sa.Uuid()),
        _required("claim", sa.String()),
        _required("tenant_id", sa.Uuid()),
        sa.Column("deployment_id", sa.Uuid()),
        _required("deployment", sa.String()),
        _required("storage_class", sa.String()),
        _required("size_gib", sa.Integer()),
        _required("rate_p_per_hour", sa.BigInteger()),
        _moment("started_at", nullable=False),
        _moment("proven_until", nullable=False),
        _moment("ended_at"),
        _required("proven_ms", sa.BigInteger()),
        _required("billed_ms", sa.BigInteger()),
        _required("billed_p", sa.Numeric(38, 0)),
        _required("waived_p", sa.Numeric(38, 0)),
        _required("rated_from_ms", sa.BigInteger()),
        _required("rated_p", sa.Numeric(38, 0)),
        sa.CheckConstraint("size_gib > 0", name=op.f("ck_volume_intervals_size")),
        sa.CheckConstraint(
            "billed_ms BETWEEN 0 AND proven_ms", name=op.f("ck_volume_intervals_billed_is_proven")
        ),
        sa.CheckConstraint(
            "billed_p >= 0 AND waived_p >= 0", name=op.f("ck_volume_intervals_sums")
        ),
        sa.CheckConstraint(
            _EXACT,
            name=op.f("ck_volume_intervals_exact_sum"),
        ),
        sa.CheckConstraint(
            "rated_from_ms BETWEEN 0 AND billed_ms",
            name=op.f("ck_volume_intervals_rate_is_of_its_life"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_volume_intervals_tenant_id")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_volume_intervals_deployment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_intervals")),
    )
    op.create_index(op.f("ix_volume_intervals_deployment_id"), table, ["deployment_id"])
    op.create_index("ix_volume_intervals_ended_at", table, ["ended_at"])
    op.create_index("ix_volume_intervals_tenant_id_started_at", table, ["tenant_id", "started_at"])
    op.create_index(
        "ix_volume_intervals_unbilled",
        table,
        ["id"],
        postgresql_where=sa.text("billed_ms < proven_ms"),
    )


def _funds() -> None:
    op.create_table(
        "fund_states",
        _required("tenant_id", sa.Uuid()),
        _required("level", sa.String()),
        _required("seen_p", sa.Numeric(38, 0)),
        _required("refilled", sa.Boolean()),
        _moment("empty_since"),
        _moment("expiry_told_at"),
        _required("told", sa.Integer()),
        sa.CheckConstraint(
            "level IN ('enough', 'day', 'hour', 'empty')", name=op.f("ck_fund_states_level")
        ),
        sa.CheckConstraint(
            "(level = 'empty') = (empty_since IS NOT NULL)", name=op.f("ck_fund_states_emptiness")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_fund_states_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_fund_states")),
    )


def _commitments() -> None:
    op.create_table(
        "commitments",
        _required("id", sa.Uuid()),
        _required("tenant_id", sa.Uuid()),
        _required("kind", sa.String()),
        sa.Column("p_per_month", sa.BigInteger()),
        sa.Column("configuration", sa.String()),
        sa.Column("replicas", sa.Integer()),
        sa.Column("rate_p_per_hour", sa.BigInteger()),
        _moment("starts_at", nullable=False),
        _moment("ends_at"),
        _moment("due_until", nullable=False),
        _required("used_p", sa.Numeric(38, 0)),
        _required("due_p", sa.Numeric(38, 0)),
        _required("reason", sa.String()),
        _required("author", sa.String()),
        _now("created_at"),
        sa.CheckConstraint(
            "(kind = 'spend' AND p_per_month > 0 AND configuration IS NULL"
            " AND replicas IS NULL AND rate_p_per_hour IS NULL) OR (kind = 'reserved'"
            " AND p_per_month IS NULL AND configuration IS NOT NULL AND replicas > 0"
            " AND rate_p_per_hour > 0 AND ends_at IS NOT NULL)",
            name=op.f("ck_commitments_kind"),
        ),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_commitments_forward")),
        sa.CheckConstraint(
            "due_until >= starts_at AND due_until <= ends_at", name=op.f("ck_commitments_reckoned")
        ),
        sa.CheckConstraint("used_p >= 0 AND due_p >= 0", name=op.f("ck_commitments_sums")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_commitments_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
    )
    op.create_index(op.f("ix_commitments_tenant_id"), "commitments", ["tenant_id"])
    _commitment_dues()


def _commitment_dues() -> None:
    op.create_table(
        "commitment_dues",
        _required("commitment_id", sa.Uuid()),
        _moment("period_start", nullable=False),
        _moment("period_end", nullable=False),
        _required("tenant_id", sa.Uuid()),
        _required("promised_p", sa.Numeric(38, 0)),
        _required("used_p", sa.Numeric(38, 0)),
        _required("due_p", sa.Numeric(38, 0)),
        _required("paid_p", sa.Numeric(38, 0)),
        sa.CheckConstraint(
            "due_p > 0 AND due_p <= promised_p", name=op.f("ck_commitment_dues_due")
        ),
        sa.CheckConstraint("paid_p BETWEEN 0 AND due_p", name=op.f("ck_commitment_dues_paid")),
        sa.ForeignKeyConstraint(
            ["commitment_id"], ["commitments.id"], name=op.f("fk_commitment_dues_commitment_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_commitment_dues_tenant_id")
        ),
        sa.PrimaryKeyConstraint("commitment_id", "period_start", name=op.f("pk_commitment_dues")),
    )
    op.create_index(
        "ix_commitment_dues_unpaid",
        "commitment_dues",
        ["tenant_id"],
        postgresql_where=sa.text("paid_p < due_p"),
    )


def _rates() -> None:
    """A replica's rate may change at the end of a tick: the exact sum is of each rate's part."""
    table = "gpu_intervals"
    for name, kind in (("rated_from_ms", sa.BigInteger()), ("rated_p", sa.Numeric(38, 0))):
        op.add_column(table, sa.Column(name, kind, nullable=False, server_default="0"))
        op.alter_column(table, name, server_default=None)
    op.add_column(table, sa.Column("commitment_id", sa.Uuid()))
    op.create_index(op.f("ix_gpu_intervals_commitment_id"), table, ["commitment_id"])
    op.create_foreign_key(
        op.f("fk_gpu_intervals_commitment_id"), table, "commitments", ["commitment_id"], ["id"]
    )
    op.add_column(table, sa.Column("list_p_per_hour", sa.BigInteger()))
    op.drop_constraint(op.f("ck_gpu_intervals_exact_sum"), table)
    op.execute("UPDATE gpu_intervals SET list_p_per_hour = rate_p_per_hour")
    # Lives of two rates, whose parts a downgrade forgot.
    op.execute(
        "UPDATE gpu_intervals SET rated_from_ms = billed_ms, rated_p = billed_p + waived_p"
        f" WHERE NOT ({_OLD_EXACT})"
    )
    op.alter_column(table, "list_p_per_hour", nullable=False)
    op.create_check_constraint(op.f("ck_gpu_intervals_exact_sum"), table, _EXACT)
    op.create_check_constraint(
        op.f("ck_gpu_intervals_rate_is_of_its_life"), table, "rated_from_ms BETWEEN 0 AND billed_ms"
    )


def _old_rates() -> None:
    table = "gpu_intervals"
    op.drop_constraint(op.f("ck_gpu_intervals_rate_is_of_its_life"), table)
    op.drop_constraint(op.f("ck_gpu_intervals_exact_sum"), table)
    op.create_check_constraint(
        op.f("ck_gpu_intervals_exact_sum"),
        table,
        _OLD_EXACT,
        postgresql_not_valid=True,  # a life with two rates keeps its sums
    )
    for name in ("list_p_per_hour", "commitment_id", "rated_p", "rated_from_ms"):
        op.drop_column(table, name)


def _required(name: str, kind: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, kind, nullable=False)


def _moment(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> sa.Column:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )
