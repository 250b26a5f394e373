"""Tenants, keys, prices, accounts, holds, the ledger and usage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

APPEND_ONLY = ("ledger_transactions", "ledger_entries", "usage_events", "price_versions")


def upgrade() -> None:
    _tenants()
    _prices()
    _accounts()
    _ledger()
    _usage()
    _guards()
    # The platform's own two accounts: where charges go and where top-ups come from.
    op.execute(
        "INSERT INTO accounts (id, kind, balance_p, held_p)"
        " SELECT gen_random_uuid(), kind, 0, 0 FROM unnest(ARRAY['revenue', 'funding']) AS kind"
    )


def downgrade() -> None:
    """Drop everything: tenants, money and its history."""
    for table in (
        *("usage_events", "usage_staging", "ledger_entries", "ledger_transactions", "holds"),
        *("gateway_epochs", "accounts", "price_versions", "admin_keys", "api_keys", "tenants"),
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_unbalanced, refuse_change")


def _moment(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> sa.Column:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def _required(name: str, type_: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, type_, nullable=False)


def _tenants() -> None:
    op.create_table(
        "tenants",
        _required("id", sa.Uuid()),
        _required("name", sa.String()),
        _required("status", sa.String()),
        _now("created_at"),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_tenants_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "api_keys",
        _required("id", sa.Uuid()),
        _required("tenant_id", sa.Uuid()),
        *_key_columns(),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_keys_public_id")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_api_keys_tenant_id_id")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"])
    op.create_table(
        "admin_keys",
        _required("id", sa.Uuid()),
        *_key_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_admin_keys_public_id")),
    )


def _key_columns() -> list[sa.Column]:
    return [
        _required("public_id", sa.String()),
        _required("digest", sa.LargeBinary()),
        _required("name", sa.String()),
        _now("created_at"),
        _moment("revoked_at"),
    ]


def _prices() -> None:
    op.create_table(
        "price_versions",
        _required("id", sa.Uuid()),
        _required("model", sa.String()),
        _required("path", sa.String()),
        _required("hit_rate_p", sa.BigInteger()),
        _required("miss_rate_p", sa.BigInteger()),
        _required("output_rate_p", sa.BigInteger()),
        _moment("effective_from", nullable=False),
        _now("created_at"),
        sa.CheckConstraint("path IN ('serverless')", name=op.f("ck_price_versions_path")),
        sa.CheckConstraint(
            "hit_rate_p >= 0 AND miss_rate_p >= 0 AND output_rate_p >= 0",
            name=op.f("ck_price_versions_rates"),
        ),
        sa.CheckConstraint(
            "hit_rate_p <= miss_rate_p", name=op.f("ck_price_versions_hit_not_above_miss")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_versions")),
        sa.UniqueConstraint(
            "model",
            "path",
            "effective_from",
            name=op.f("uq_price_versions_model_path_effective_from"),
        ),
    )


def _accounts() -> None:
    op.create_table(
        "accounts",
        _required("id", sa.Uuid()),
        _required("kind", sa.String()),
        sa.Column("tenant_id", sa.Uuid()),
        _required("balance_p", sa.Numeric(38, 0)),
        _required("held_p", sa.Numeric(38, 0)),
        sa.CheckConstraint(
            "kind IN ('tenant', 'revenue', 'funding')", name=op.f("ck_accounts_kind")
        ),
        sa.CheckConstraint(
            "(kind = 'tenant') = (tenant_id IS NOT NULL)", name=op.f("ck_accounts_owner")
        ),
        sa.CheckConstraint("held_p >= 0", name=op.f("ck_accounts_held_not_negative")),
        sa.CheckConstraint(
            "kind <> 'tenant' OR balance_p - held_p >= 0", name=op.f("ck_accounts_not_overspent")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_accounts_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_accounts_tenant_id")),
    )
    op.create_index(
        "uq_accounts_platform",
        "accounts",
        ["kind"],
        unique=True,
        postgresql_where=sa.text("tenant_id IS NULL"),
    )
    op.create_table(
        "gateway_epochs",
        _required("id", sa.Uuid()),
        _required("gateway", sa.String()),
        _now("started_at"),
        _moment("closed_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateway_epochs")),
    )
    op.create_index(op.f("ix_gateway_epochs_gateway"), "gateway_epochs", ["gateway"])
    _holds()


def _holds() -> None:
    op.create_table(
        "holds",
        _required("request_id", sa.Uuid()),
        _required("tenant_id", sa.Uuid()),
        _required("api_key_id", sa.Uuid()),
        _required("account_id", sa.Uuid()),
        _required("epoch_id", sa.Uuid()),
        _required("price_version_id", sa.Uuid()),
        _required("amount_p", sa.BigInteger()),
        _required("prompt_tokens", sa.Integer()),
        _required("completion_tokens", sa.Integer()),
        _required("state", sa.String()),
        _now("created_at"),
        _moment("closed_at"),
        sa.CheckConstraint("state IN ('open', 'settled', 'released')", name=op.f("ck_holds_state")),
        sa.CheckConstraint("amount_p >= 0", name=op.f("ck_holds_amount_not_negative")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_holds_account_id")),
        sa.ForeignKeyConstraint(
            ["epoch_id"], ["gateway_epochs.id"], name=op.f("fk_holds_epoch_id")
        ),
        sa.ForeignKeyConstraint(
            ["price_version_id"], ["price_versions.id"], name=op.f("fk_holds_price_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "api_key_id"],
            ["api_keys.tenant_id", "api_keys.id"],
            name=op.f("fk_holds_tenant_id_api_key_id"),
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_holds")),
    )
    op.create_index(
        "ix_holds_open", "holds", ["epoch_id"], postgresql_where=sa.text("state = 'open'")
    )


def _ledger() -> None:
    op.create_table(
        "ledger_transactions",
        _required("id", sa.Uuid()),
        _required("kind", sa.String()),
        _required("tenant_id", sa.Uuid()),
        sa.Column("request_id", sa.Uuid()),
        sa.Column("idempotency_key", sa.String()),
        _required("reason", sa.String()),
        _required("author", sa.String()),
        _now("created_at"),
        sa.CheckConstraint(
            "kind IN ('top_up', 'charge')", name=op.f("ck_ledger_transactions_kind")
        ),
        sa.CheckConstraint(
            "(kind = 'charge') = (request_id IS NOT NULL)",
            name=op.f("ck_ledger_transactions_request"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_ledger_transactions_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transactions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_ledger_transactions_idempotency_key")),
        sa.UniqueConstraint("request_id", name=op.f("uq_ledger_transactions_request_id")),
    )
    op.create_index(op.f("ix_ledger_transactions_tenant_id"), "ledger_transactions", ["tenant_id"])
    _ledger_entries()


def _ledger_entries() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _required("transaction_id", sa.Uuid()),
        _required("account_id", sa.Uuid()),
        _required("amount_p", sa.BigInteger()),
        sa.Column("token_class", sa.String()),
        sa.Column("tokens", sa.BigInteger()),
        sa.Column("rate_p", sa.BigInteger()),
        sa.CheckConstraint("amount_p <> 0", name=op.f("ck_ledger_entries_amount_not_zero")),
        sa.CheckConstraint(
            "token_class IS NULL OR token_class IN ('hit', 'miss', 'output')",
            name=op.f("ck_ledger_entries_token_class"),
        ),
        sa.CheckConstraint(
            "token_class IS NULL OR abs(amount_p) = tokens * rate_p",
            name=op.f("ck_ledger_entries_exact_product"),
        ),
        sa.CheckConstraint(
            "(token_class IS NULL) = (tokens IS NULL) AND (tokens IS NULL) = (rate_p IS NULL)",
            name=op.f("ck_ledger_entries_class_explained"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_ledger_entries_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["ledger_transactions.id"],
            name=op.f("fk_ledger_entries_transaction_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
    op.create_index("ix_ledger_entries_account_id_id", "ledger_entries", ["account_id", "id"])
    op.create_index(op.f("ix_ledger_entries_transaction_id"), "ledger_entries", ["transaction_id"])


def _usage_columns() -> list[sa.Column]:
    return [
        _required("request_id", sa.Uuid()),
        _required("tenant_id", sa.Uuid()),
        _required("api_key_id", sa.Uuid()),
        _required("model", sa.String()),
        _required("path", sa.String()),
        sa.Column("replica", sa.String()),
        _required("thinking", sa.Boolean()),
        _required("streamed", sa.Boolean()),
        _required("hit_tokens", sa.BigInteger()),
        _required("miss_tokens", sa.BigInteger()),
        _required("output_tokens", sa.BigInteger()),
        _required("reasoning_tokens", sa.BigInteger()),
        _required("finish_reason", sa.String()),
        _moment("started_at", nullable=False),
        _moment("first_token_at"),
        _moment("finished_at"),
        _required("price_version_id", sa.Uuid()),
    ]


def _usage() -> None:
    op.create_table(
        "usage_staging",
        *_usage_columns(),
        _now("staged_at"),
        sa.Column("rejected", sa.String()),
        sa.ForeignKeyConstraint(
            ["price_version_id"],
            ["price_versions.id"],
            name=op.f("fk_usage_staging_price_version_id"),
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_usage_staging")),
    )
    op.create_index(
        "ix_usage_staging_queue",
        "usage_staging",
        ["staged_at"],
        postgresql_where=sa.text("rejected IS NULL"),
    )
    op.create_table(
        "usage_events",
        *_usage_columns(),
        _required("charge_p", sa.BigInteger()),
        _now("settled_at"),
        sa.CheckConstraint(
            "hit_tokens >= 0 AND miss_tokens >= 0 AND output_tokens >= 0"
            " AND reasoning_tokens BETWEEN 0 AND output_tokens",
            name=op.f("ck_usage_events_tokens"),
        ),
        sa.ForeignKeyConstraint(
            ["price_version_id"],
            ["price_versions.id"],
            name=op.f("fk_usage_events_price_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "api_key_id"],
            ["api_keys.tenant_id", "api_keys.id"],
            name=op.f("fk_usage_events_tenant_id_api_key_id"),
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_usage_events")),
    )
    op.create_index(
        "ix_usage_events_tenant_id_request_id", "usage_events", ["tenant_id", "request_id"]
    )


def _guards() -> None:
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% refused: table % is append-only', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    for table in APPEND_ONLY:
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
    op.execute("""
        CREATE FUNCTION refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT sum(amount_p) FROM ledger_entries
                WHERE transaction_id = NEW.transaction_id) <> 0 THEN
                RAISE EXCEPTION 'ledger transaction % does not sum to zero', NEW.transaction_id
                    USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON ledger_entries
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced()
    """)
