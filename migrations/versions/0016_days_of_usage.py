"""Usage summed up by day too, by the database itself, and minutes found by their tenant alone."""

import sqlalchemy as sa
from alembic import op

from migrations import rules

revision = "0016"
down_revision = "0015"

_SUMS = ("requests", "hit_tokens", "miss_tokens", "output_tokens", "reasoning_tokens", "charge_p")
_GROUP = ("tenant_id", "project_id", "api_key_id", "model", "path", "band", "thinking")
_COLUMNS = ", ".join(("width_seconds", "start", *_GROUP, *_SUMS))


def upgrade() -> None:
    # Only the job that rolls up waits while hours are summed up; readers wait for what comes after.
    op.execute("LOCK TABLE usage_rollups IN SHARE ROW EXCLUSIVE MODE")
    op.execute(f"""
        CREATE TEMP TABLE days ON COMMIT DROP AS
        SELECT 86400 AS width_seconds, date_bin('1 day', start, 'epoch'::timestamptz) AS start,
            {", ".join(_GROUP)}, {", ".join(f"sum({name}) AS {name}" for name in _SUMS)}
        FROM usage_rollups WHERE width_seconds = 3600
        GROUP BY 2, {", ".join(_GROUP)}
    """)
    _widths("width_seconds IN (60, 3600, 86400)")
    op.execute(f"INSERT INTO usage_rollups ({_COLUMNS}) SELECT {_COLUMNS} FROM days")
    _sum_up()
    # Of all tenants' minutes it led to one tenant's; the primary key leads there at once.
    op.drop_index("ix_usage_rollups_minutes", "usage_rollups")
    _rule()


def downgrade() -> None:
    rules.drop("wrong_days")
    op.create_index(
        "ix_usage_rollups_minutes",
        "usage_rollups",
        ["start"],
        postgresql_where=sa.text("width_seconds = 60"),
    )
    op.execute("DROP TRIGGER sums_up_days ON usage_rollups")
    op.execute("DROP FUNCTION sum_up_days")
    op.execute("DELETE FROM usage_rollups WHERE width_seconds = 86400")
    _widths("width_seconds IN (60, 3600)")


def _widths(check: str) -> None:
    op.drop_constraint(op.f("ck_usage_rollups_width"), "usage_rollups")
    op.create_check_constraint(op.f("ck_usage_rollups_width"), "usage_rollups", check)


def _sum_up() -> None:
    """What is added to an hour is added to its day, whichever version of the job adds it."""
    added = ", ".join(f"NEW.{name} - coalesce(OLD.{name}, 0)" for name in _SUMS)
    op.execute(f"""
        CREATE FUNCTION sum_up_days() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO usage_rollups ({_COLUMNS})
            VALUES (86400, date_bin('1 day', NEW.start, 'epoch'::timestamptz),
                {", ".join(f"NEW.{name}" for name in _GROUP)}, {added})
            ON CONFLICT (tenant_id, width_seconds, start, api_key_id, model, path, band, thinking)
            DO UPDATE SET
                {", ".join(f"{name} = usage_rollups.{name} + excluded.{name}" for name in _SUMS)};
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER sums_up_days AFTER INSERT OR UPDATE ON usage_rollups
        FOR EACH ROW WHEN (NEW.width_seconds = 3600) EXECUTE FUNCTION sum_up_days()
    """)


def _rule() -> None:
    sums = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
    each = ", ".join(f"('{name}', d.{name}, h.{name})" for name in _SUMS)
    rules.add(
        "wrong_days",
        "a tenant's usage of a day is what its hours sum up to",
        f"""
        SELECT coalesce(d.tenant_id, h.tenant_id) || ' ' || coalesce(d.day, h.day)::date
            || ' ' || it.name, coalesce(it.found, 0), coalesce(it.expected, 0)
        FROM (
            SELECT tenant_id, start AS day, {sums}
            FROM usage_rollups WHERE width_seconds = 86400 GROUP BY 1, 2
        ) d FULL JOIN (
            SELECT tenant_id, date_bin('1 day', start, 'epoch'::timestamptz) AS day, {sums}
            FROM usage_rollups WHERE width_seconds = 3600 GROUP BY 1, 2
        ) h ON h.tenant_id = d.tenant_id AND h.day = d.day
        CROSS JOIN LATERAL (VALUES {each}) AS it(name, found, expected)
        WHERE coalesce(it.found, 0) <> coalesce(it.expected, 0)
        """,
    )
