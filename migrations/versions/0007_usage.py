"""Usage in partitions by time, its roll-ups, and tenants that are gone for ever."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from migrations import rules

revision = "0007"
down_revision = "0006"

_SUMS = ("requests", "hit_tokens", "miss_tokens", "output_tokens", "reasoning_tokens", "charge_p")
_SUMMED = ", ".join(f"sum({name})" for name in _SUMS)
_COUNTED = ", ".join("count(*)" if name == "requests" else f"sum({name})" for name in _SUMS)
_GROUP = ("tenant_id", "project_id", "api_key_id", "model", "path", "band", "thinking")
_OWNED = ", ".join(
    f"api_keys.{name}" if name == "project_id" else f"events.{name}" for name in _GROUP
)


def upgrade() -> None:
    # What is there is summed up first, while it can be read; only then is the table shut, shortly.
    op.execute("LOCK TABLE usage_events IN SHARE ROW EXCLUSIVE MODE")
    _tables()
    _fill()
    with rules.set_aside("usage_events"):
        _partition()
    _tell()
    _rules()
    op.create_index(
        "ix_ledger_transactions_costs",
        "ledger_transactions",
        ["tenant_id", "created_at"],
        postgresql_where=sa.text("kind <> 'charge'"),
    )
    _tenants()


def downgrade() -> None:
    op.execute("DROP TRIGGER stays_deleted ON tenants")
    op.execute("DROP FUNCTION refuse_return")
    op.execute("UPDATE tenants SET status = 'suspended' WHERE status = 'deleted'")
    _statuses("status IN ('active', 'suspended')")
    op.drop_index("ix_ledger_transactions_costs", "ledger_transactions")
    _old_rules()
    op.execute("DROP TRIGGER tells_usage ON usage_events")
    op.execute("DROP FUNCTION tell_usage")
    for table in ("usage_expired", "usage_rollups", "usage_deltas"):
        op.drop_table(table)
    with rules.set_aside("usage_events"):
        _whole_again()


def _partition() -> None:
    """Make what is there the partition of everything before next month: no row is copied."""
    until = _next_month()
    first_id = _first_id(until)
    history = f"usage_until_{until:%Y_%m}"
    op.execute("CREATE SCHEMA IF NOT EXISTS partitions")
    op.execute("DROP TRIGGER append_only ON usage_events")
    op.execute(f"ALTER TABLE usage_events RENAME TO {history}")
    op.execute(f"ALTER TABLE {history} SET SCHEMA partitions")
    op.execute(
        f"CREATE TABLE usage_events (LIKE partitions.{history} INCLUDING DEFAULTS"
        " INCLUDING CONSTRAINTS) PARTITION BY RANGE (request_id)"
    )
    op.execute("ALTER TABLE usage_events ADD CONSTRAINT pk_usage_events PRIMARY KEY (request_id)")
    op.create_index(
        "ix_usage_events_tenant_id_request_id", "usage_events", ["tenant_id", "request_id"]
    )
    _refer(_references(f"partitions.{history}"))
    # Ids that are of no month: a clock that was set wrong, or no UUIDv7.
    op.execute("CREATE TABLE partitions.usage_stray (LIKE usage_events INCLUDING ALL)")
    op.execute(
        f"WITH moved AS (DELETE FROM partitions.{history} WHERE request_id >= '{first_id}'"
        " RETURNING *) INSERT INTO partitions.usage_stray SELECT * FROM moved"
    )
    op.execute(
        f"ALTER TABLE usage_events ATTACH PARTITION partitions.{history}"
        f" FOR VALUES FROM (MINVALUE) TO ('{first_id}')"
    )
    op.execute("ALTER TABLE usage_events ATTACH PARTITION partitions.usage_stray DEFAULT")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("""
        CREATE FUNCTION refuse_direct() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% refused: % is written through its parent alone', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    for name in (history, "usage_stray"):
        op.execute(f"""
            CREATE TRIGGER through_parent BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
            ON partitions.{name} FOR EACH STATEMENT EXECUTE FUNCTION refuse_direct()
        """)


def _references(of: str) -> dict[str, str]:
    """Return a table's foreign keys by name, as SQL says them."""
    query = sa.text(
        "SELECT conname, pg_get_constraintdef(oid) AS told FROM pg_constraint"
        " WHERE conrelid = CAST(:of AS regclass) AND contype = 'f'"
    )
    return {row.conname: row.told for row in op.get_bind().execute(query, {"of": of})}


def _refer(references: dict[str, str]) -> None:
    for name, told in references.items():
        op.execute(f"ALTER TABLE usage_events ADD CONSTRAINT {name} {told}")


def _whole_again() -> None:
    op.execute("ALTER TABLE usage_events RENAME TO partitioned")
    op.execute(
        "CREATE TABLE usage_events (LIKE partitioned INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    )
    op.execute("INSERT INTO usage_events SELECT * FROM partitioned")
    references = _references("partitioned")
    op.execute("DROP TABLE partitioned CASCADE")
    op.execute("DROP SCHEMA partitions")
    op.execute("DROP FUNCTION refuse_direct")
    op.execute("ALTER TABLE usage_events ADD CONSTRAINT pk_usage_events PRIMARY KEY (request_id)")
    op.create_index(
        "ix_usage_events_tenant_id_request_id", "usage_events", ["tenant_id", "request_id"]
    )
    _refer(references)
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)


def _next_month() -> datetime:
    now = datetime.now(UTC)
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)


def _first_id(moment: datetime) -> str:
    """The lowest UUIDv7 of a moment, but for its version: 48 bits of ms, then zeros."""
    digits = f"{int(moment.timestamp()) * 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def _required(name: str, type_: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, type_, nullable=False)


def _moment(name: str) -> sa.Column:
    return _required(name, sa.DateTime(timezone=True))


def _group_columns() -> list[sa.Column]:
    types: dict[str, sa.types.TypeEngine] = {"thinking": sa.Boolean()}
    types |= {name: sa.String() for name in ("model", "path", "band")}
    return [_required(name, types.get(name, sa.Uuid())) for name in _GROUP]


def _sum_columns() -> list[sa.Column]:
    return [_required(name, sa.BigInteger()) for name in _SUMS]


def _tables() -> None:
    op.create_table(
        "usage_deltas",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _moment("minute"),
        *_group_columns(),
        *_sum_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_deltas")),
    )
    op.create_table(
        "usage_rollups",
        _required("width_seconds", sa.Integer()),
        _moment("start"),
        *_group_columns(),
        *_sum_columns(),
        sa.CheckConstraint("width_seconds IN (60, 3600)", name=op.f("ck_usage_rollups_width")),
    )
    op.create_table(
        "usage_expired",
        _required("tenant_id", sa.Uuid()),
        _required("until_id", sa.Uuid()),
        _required("from_id", sa.Uuid()),
        *_sum_columns(),
        sa.Column(
            "expired_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_usage_expired_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "until_id", name=op.f("pk_usage_expired")),
    )


def _tell() -> None:
    """Each statement that adds usage adds what it adds to the sums, in the same transaction."""
    op.execute(f"""
        CREATE FUNCTION tell_usage() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO usage_deltas (minute, {", ".join(_GROUP)}, {", ".join(_SUMS)})
            SELECT date_bin('1 minute', events.started_at, 'epoch'::timestamptz), {_OWNED},
                   {_COUNTED}
            FROM added AS events JOIN api_keys
                ON api_keys.tenant_id = events.tenant_id AND api_keys.id = events.api_key_id
            GROUP BY 1, {_OWNED};
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER tells_usage AFTER INSERT ON usage_events
        REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION tell_usage()
    """)


def _fill() -> None:
    """Sum up what was settled before there were roll-ups."""
    group, sums = ", ".join(_GROUP), ", ".join(_SUMS)
    op.execute(f"""
        INSERT INTO usage_rollups (width_seconds, start, {group}, {sums})
        SELECT 60, date_bin('1 minute', events.started_at, 'epoch'::timestamptz), {_OWNED},
               {_COUNTED}
        FROM usage_events AS events JOIN api_keys
            ON api_keys.tenant_id = events.tenant_id AND api_keys.id = events.api_key_id
        GROUP BY 2, {_OWNED}
    """)
    op.execute(f"""
        INSERT INTO usage_rollups (width_seconds, start, {group}, {sums})
        SELECT 3600, date_bin('1 hour', start, 'epoch'::timestamptz), {group}, {_SUMMED}
        FROM usage_rollups GROUP BY 2, {group}
    """)
    # After what was filled in: row by row they take several times as long.
    op.create_primary_key(
        op.f("pk_usage_rollups"),
        "usage_rollups",
        ["tenant_id", "width_seconds", "start", "api_key_id", "model", "path", "band", "thinking"],
    )
    op.create_foreign_key(
        op.f("fk_usage_rollups_tenant_id_api_key_id"),
        "usage_rollups",
        "api_keys",
        ["tenant_id", "api_key_id"],
        ["tenant_id", "id"],
    )
    op.create_index(
        "ix_usage_rollups_minutes",
        "usage_rollups",
        ["start"],
        postgresql_where=sa.text("width_seconds = 60"),
    )


def _rules() -> None:
    sums = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
    raw = ", ".join(_SUMS).replace("requests", "1 AS requests")
    each = ", ".join(f"('{name}', r.{name}, e.{name})" for name in _SUMS)
    rules.add(
        "wrong_rollups",
        "a tenant's roll-ups are what its requests sum up to, expired ones too",
        f"""
        SELECT coalesce(r.tenant_id, e.tenant_id) || ' ' || it.name,
            coalesce(it.found, 0), coalesce(it.expected, 0)
        FROM (
            SELECT tenant_id, {sums} FROM (
                SELECT tenant_id, {", ".join(_SUMS)} FROM usage_rollups WHERE width_seconds = 3600
                UNION ALL SELECT tenant_id, {", ".join(_SUMS)} FROM usage_deltas
            ) rolled GROUP BY tenant_id
        ) r FULL JOIN (
            SELECT tenant_id, {sums} FROM (
                SELECT tenant_id, {raw} FROM usage_events
                UNION ALL SELECT tenant_id, {", ".join(_SUMS)} FROM usage_expired
            ) raw GROUP BY tenant_id
        ) e ON e.tenant_id = r.tenant_id
        CROSS JOIN LATERAL (VALUES {each}) AS it(name, found, expected)
        WHERE coalesce(it.found, 0) <> coalesce(it.expected, 0)
        """,
    )
    rules.add(
        "charges_without_usage",
        "every charge has its usage row, until that expires (I3)",
        """
        SELECT t.request_id::text, 0::numeric, 1
        FROM ledger_transactions t LEFT JOIN usage_events u ON u.request_id = t.request_id
        WHERE t.kind = 'charge' AND u.request_id IS NULL AND NOT EXISTS (
            SELECT FROM usage_expired x WHERE x.tenant_id = t.tenant_id
                AND t.request_id >= x.from_id AND t.request_id < x.until_id
        )
        """,
    )


def _old_rules() -> None:
    rules.drop("wrong_rollups")
    rules.add(
        "charges_without_usage",
        "every charge has its usage row, until that expires (I3)",
        """
        SELECT t.request_id::text, 0::numeric, 1
        FROM ledger_transactions t LEFT JOIN usage_events u ON u.request_id = t.request_id
        WHERE t.kind = 'charge' AND u.request_id IS NULL
            AND t.request_id >= (SELECT request_id FROM usage_events ORDER BY request_id LIMIT 1)
        """,
    )


def _tenants() -> None:
    _statuses("status IN ('active', 'suspended', 'deleted')")
    op.execute("""
        CREATE FUNCTION refuse_return() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'tenant % is deleted and stays so', OLD.id
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER stays_deleted BEFORE UPDATE ON tenants FOR EACH ROW
        WHEN (OLD.status = 'deleted') EXECUTE FUNCTION refuse_return()
    """)


def _statuses(check: str) -> None:
    op.drop_constraint(op.f("ck_tenants_status"), "tenants")
    op.create_check_constraint(op.f("ck_tenants_status"), "tenants", check)
