"""Time bands, calendars, overrides and a meter per request in the price book.

Today's rates become the band `standard` of their version. Holds and usage point at a version and a
band together. The checks of big tables are first made for new rows, then proven for old ones, which
blocks nobody.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import rules

revision = "0005"
down_revision = "0004"

_PINNED = ("holds", "usage_staging", "usage_events")
_RATES = ("hit_rate_p", "miss_rate_p", "output_rate_p")
_CLASSES = "token_class IS NULL OR token_class IN ('hit', 'miss', 'output'{more})"
_MISRATED = """
    SELECT e.id::text, e.rate_p, p.rate_p
    FROM usage_events u
    JOIN ledger_transactions t ON t.request_id = u.request_id
    JOIN ledger_entries e ON e.transaction_id = t.id
    JOIN (
        SELECT version_id, band, 'hit' AS token_class, hit_rate_p AS rate_p FROM price_rates
        UNION ALL SELECT version_id, band, 'miss', miss_rate_p FROM price_rates
        UNION ALL SELECT version_id, band, 'output', output_rate_p FROM price_rates
        UNION ALL SELECT version_id, band, 'request', request_rate_p FROM price_rates
    ) p ON p.version_id = u.price_version_id AND p.band = u.band AND p.token_class = e.token_class
    WHERE e.rate_p <> p.rate_p
"""
_LOCK_KEY = 0x70726963  # any number, the same in every version: "pric"


def upgrade() -> None:
    _calendars()
    _versions()
    _rates()
    for table in _PINNED:
        _pin(table, "price_rates", ["price_version_id", "band"], ["version_id", "band"])
        op.drop_constraint(op.f(f"fk_{table}_price_version_id"), table)
    _classes(", 'request'")
    _guards()
    rules.add(
        "misrated_charges",
        "a charge is at the rates of the version and band that its request was admitted at (I7)",
        _MISRATED,
    )


def downgrade() -> None:
    _refuse_what_is_unknown_below()
    rules.drop("misrated_charges")
    op.execute("DROP FUNCTION take_turns, refuse_no_rates, refuse_late_rates CASCADE")
    _classes("")
    for table in _PINNED:
        _pin(table, "price_versions", ["price_version_id"], ["id"])
        op.drop_constraint(op.f(f"fk_{table}_price_version_id_band"), table)
    _old_versions()
    op.drop_table("price_rates")
    op.drop_column("price_versions", "calendar_id")
    op.drop_table("price_calendars")


def _calendars() -> None:
    op.create_table(
        "price_calendars",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("default_band", sa.String(), nullable=False),
        sa.Column("windows", postgresql.JSONB(), nullable=False),
        sa.Column("holidays", sa.ARRAY(sa.Date()), nullable=False),
        sa.Column("holidays_known_until", sa.Date()),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_calendars")),
    )


def _versions() -> None:
    table = "price_versions"
    op.add_column(
        table, sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False)
    )
    op.create_unique_constraint(op.f("uq_price_versions_position"), table, ["position"])
    op.add_column(table, sa.Column("tenant_id", sa.Uuid()))
    op.add_column(table, sa.Column("calendar_id", sa.Uuid()))
    for column, other in (("tenant_id", "tenants"), ("calendar_id", "price_calendars")):
        op.create_foreign_key(op.f(f"fk_price_versions_{column}"), table, other, [column], ["id"])
    op.drop_constraint(op.f("uq_price_versions_model_path_effective_from"), table)
    op.create_unique_constraint(
        op.f("uq_price_versions_tenant_id_model_path_effective_from"),
        table,
        ["tenant_id", "model", "path", "effective_from"],
        postgresql_nulls_not_distinct=True,
    )


def _rates() -> None:
    op.create_table(
        "price_rates",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("band", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*_RATES, "request_rate_p")),
        sa.CheckConstraint(
            "hit_rate_p >= 0 AND miss_rate_p >= 0 AND output_rate_p >= 0 AND request_rate_p >= 0",
            name=op.f("ck_price_rates_rates"),
        ),
        sa.CheckConstraint(
            "hit_rate_p <= miss_rate_p", name=op.f("ck_price_rates_hit_not_above_miss")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["price_versions.id"], name=op.f("fk_price_rates_version_id")
        ),
        sa.PrimaryKeyConstraint("version_id", "band", name=op.f("pk_price_rates")),
    )
    op.execute(
        "INSERT INTO price_rates"
        " SELECT id, 'standard', hit_rate_p, miss_rate_p, output_rate_p, 0 FROM price_versions"
    )
    op.drop_constraint(op.f("ck_price_versions_rates"), "price_versions")
    op.drop_constraint(op.f("ck_price_versions_hit_not_above_miss"), "price_versions")
    for name in _RATES:
        op.drop_column("price_versions", name)


def _old_versions() -> None:
    table = "price_versions"
    for name in _RATES:
        op.add_column(table, sa.Column(name, sa.BigInteger()))
    op.execute("ALTER TABLE price_versions DISABLE TRIGGER append_only")
    op.execute(
        "UPDATE price_versions SET hit_rate_p = r.hit_rate_p, miss_rate_p = r.miss_rate_p,"
        " output_rate_p = r.output_rate_p"
        " FROM price_rates AS r WHERE r.version_id = price_versions.id"
    )
    op.execute("ALTER TABLE price_versions ENABLE TRIGGER append_only")
    for name in _RATES:
        op.alter_column(table, name, nullable=False)
    op.create_check_constraint(
        op.f("ck_price_versions_rates"),
        table,
        "hit_rate_p >= 0 AND miss_rate_p >= 0 AND output_rate_p >= 0",
    )
    op.create_check_constraint(
        op.f("ck_price_versions_hit_not_above_miss"), table, "hit_rate_p <= miss_rate_p"
    )
    op.drop_constraint(op.f("uq_price_versions_tenant_id_model_path_effective_from"), table)
    op.create_unique_constraint(
        op.f("uq_price_versions_model_path_effective_from"),
        table,
        ["model", "path", "effective_from"],
    )
    op.drop_column(table, "tenant_id")
    op.drop_column(table, "position")


def _pin(table: str, other: str, columns: list[str], to: list[str]) -> None:
    name = op.f(f"fk_{table}_{'_'.join(columns)}")
    op.create_foreign_key(name, table, other, columns, to, postgresql_not_valid=True)
    op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _classes(more: str) -> None:
    name = op.f("ck_ledger_entries_token_class")
    op.drop_constraint(name, "ledger_entries")
    op.create_check_constraint(
        name, "ledger_entries", _CLASSES.format(more=more), postgresql_not_valid=True
    )
    op.execute(f"ALTER TABLE ledger_entries VALIDATE CONSTRAINT {name}")


def _guards() -> None:
    for table in ("price_rates", "price_calendars"):
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
    # Positions are given under this lock, so they grow in the order of commits, and a reader that
    # has seen one has seen all before it.
    op.execute(f"""
        CREATE FUNCTION take_turns() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock({_LOCK_KEY});
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER one_at_a_time BEFORE INSERT ON price_versions
        FOR EACH STATEMENT EXECUTE FUNCTION take_turns()
    """)
    op.execute("""
        CREATE FUNCTION refuse_no_rates() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.tenant_id IS NULL
               AND NOT EXISTS (SELECT FROM price_rates WHERE version_id = NEW.id) THEN
                RAISE EXCEPTION 'price version % has no rates', NEW.id
                    USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE CONSTRAINT TRIGGER has_rates AFTER INSERT ON price_versions
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_no_rates()
    """)
    op.execute("""
        CREATE FUNCTION refuse_late_rates() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- `now()` is the transaction's: another one can only be later.
            IF (SELECT created_at FROM price_versions WHERE id = NEW.version_id) <> now() THEN
                RAISE EXCEPTION 'price version % is published: its rates never change',
                    NEW.version_id USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER published_together AFTER INSERT ON price_rates
        FOR EACH ROW EXECUTE FUNCTION refuse_late_rates()
    """)


def _refuse_what_is_unknown_below() -> None:
    op.execute("""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM price_versions
                       WHERE tenant_id IS NOT NULL OR calendar_id IS NOT NULL)
               OR EXISTS (SELECT FROM price_rates WHERE request_rate_p <> 0) THEN
                RAISE EXCEPTION 'this price book has overrides, bands or prices per request, which'
                    ' the revision below does not know'
                    USING ERRCODE = 'feature_not_supported';
            END IF;
        END $$
    """)
