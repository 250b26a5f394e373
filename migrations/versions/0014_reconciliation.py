"""What engines say of requests, and where their word and the bill differ."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_COUNTS = ("hit_tokens", "miss_tokens", "output_tokens", "reasoning_tokens")


def upgrade() -> None:
    _journals()
    _attempts()
    _findings()


def downgrade() -> None:
    for table in ("reconciliation_findings", "witnessed_attempts", "engine_journals"):
        op.drop_table(table)


def _required(name: str, type_: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, type_, nullable=False)


def _moment(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _counts(prefix: str) -> list[sa.Column]:
    return [_required(f"{prefix}{name}", sa.BigInteger()) for name in _COUNTS]


def _journals() -> None:
    op.create_table(
        "engine_journals",
        _required("replica", sa.String()),
        _required("after_us", sa.BigInteger()),
        _required("kept", sa.Boolean()),
        _moment("since", nullable=False),
        _moment("read_until", nullable=False),
        sa.PrimaryKeyConstraint("replica", name=op.f("pk_engine_journals")),
    )


def _attempts() -> None:
    op.create_table(
        "witnessed_attempts",
        _required("replica", sa.String()),
        _required("attempt_id", sa.String()),
        _required("request_id", sa.Uuid()),
        _required("model", sa.String()),
        *_counts(""),
        _required("finish_reason", sa.String()),
        _moment("started_at", nullable=False),
        _moment("ended_at", nullable=False),
        _moment("compared_at"),
        sa.PrimaryKeyConstraint("replica", "attempt_id", name=op.f("pk_witnessed_attempts")),
    )
    op.create_index(op.f("ix_witnessed_attempts_request_id"), "witnessed_attempts", ["request_id"])
    op.create_index(op.f("ix_witnessed_attempts_ended_at"), "witnessed_attempts", ["ended_at"])
    op.create_index(
        "ix_witnessed_attempts_waiting",
        "witnessed_attempts",
        ["ended_at"],
        postgresql_where=sa.text("compared_at IS NULL"),
    )


def _findings() -> None:
    op.create_table(
        "reconciliation_findings",
        _required("request_id", sa.Uuid()),
        _required("kind", sa.String()),
        sa.Column("replica", sa.String()),
        *_counts("billed_"),
        *_counts("witnessed_"),
        sa.Column(
            "found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("explanation", sa.String()),
        sa.Column("explained_by", sa.String()),
        sa.CheckConstraint(
            "kind IN ('overbilled', 'underbilled', 'unbilled', 'unwitnessed')",
            name=op.f("ck_reconciliation_findings_kind"),
        ),
        sa.CheckConstraint(
            "(explanation IS NULL) = (explained_by IS NULL)",
            name=op.f("ck_reconciliation_findings_explained"),
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_reconciliation_findings")),
    )
    op.create_index(
        op.f("ix_reconciliation_findings_found_at"), "reconciliation_findings", ["found_at"]
    )
