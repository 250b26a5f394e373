"""Row-level security: a tenant's session sees its own rows."""

from alembic import op
from sqlalchemy import text

from controlplane.errors import StartupError

revision = "0012"
down_revision = "0011"

ROLE = "flashplane_tenant"
_OWN = "(SELECT NULLIF(current_setting('flashplane.tenant_id', true), '')::uuid)"
_MINE = f"tenant_id = {_OWN}"

# Whose rows are everybody's, or somebody's through another table, which has a policy itself.
_OTHERWISE = {
    "tenants": f"id = {_OWN}",
    "price_versions": f"tenant_id IS NULL OR {_MINE}",
    "price_rates": "EXISTS (SELECT FROM price_versions AS it WHERE it.id = version_id)",
    "ledger_entries": "EXISTS (SELECT FROM accounts AS it WHERE it.id = account_id)",
    "people": "EXISTS (SELECT FROM memberships AS it WHERE it.person_id = people.id)",
}
# What the tenants' REST API does to each table, and no more.
_READ = (
    *("billing_profiles", "commitment_dues", "commitments", "fund_states"),
    *("gpu_intervals", "holds", "invoice_lines"),
    *("invoice_payments", "invoices", "ledger_entries", "ledger_transactions", "people"),
    *("price_rates", "price_versions", "usage_deltas", "usage_events", "usage_expired"),
    *("usage_rollups", "usage_staging", "volume_intervals"),
    # Of nobody: what everybody may buy.
    *("gpu_configurations", "gpu_price_versions", "models", "price_calendars"),
    "storage_price_versions",
)
_WRITE = {
    # To lock the account while a budget is set; its sums cannot be written.
    "accounts": "SELECT, UPDATE (id)",
    "api_keys": "SELECT, INSERT, UPDATE",
    "audit_events": "SELECT, INSERT",
    "budgets": "SELECT, INSERT, UPDATE, DELETE",
    "deployments": "SELECT, INSERT, UPDATE",
    # Of nobody: found by a hash that only their owner can make, and encrypted.
    "given_answers": "SELECT, INSERT, UPDATE, DELETE",
    "memberships": "SELECT, INSERT, UPDATE, DELETE",
    "projects": "SELECT, INSERT, UPDATE",
    # To lock the tenant while a project's name is chosen; its id cannot become another's.
    "tenants": "SELECT, UPDATE (id)",
    "webhook_deliveries": "SELECT, INSERT, UPDATE, DELETE",
    "webhook_endpoints": "SELECT, INSERT, UPDATE, DELETE",
    "webhook_notices": "SELECT, INSERT",
}
_TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
      AND NOT relispartition
      AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid
                  AND attname = 'tenant_id' AND NOT attisdropped)
    ORDER BY relname
""")


def upgrade() -> None:
    _make_role()
    for table, whose in _policies().items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO {ROLE} USING ({whose})")
    op.execute(f"GRANT SELECT ON {', '.join(_READ)} TO {ROLE}")
    for table, rights in _WRITE.items():
        op.execute(f"GRANT {rights} ON {table} TO {ROLE}")


def downgrade() -> None:
    # The role stays: other databases of this server may use it.
    op.execute(f"REVOKE ALL ON {', '.join((*_READ, *_WRITE))} FROM {ROLE}")
    for table in _policies():
        op.execute(f"DROP POLICY own_rows ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")


def _policies() -> dict[str, str]:
    return dict.fromkeys(op.get_bind().scalars(_TABLES), _MINE) | _OTHERWISE


def _make_role() -> None:
    """Roles are of the whole server: another database may have made it, or be making it now."""
    connection = op.get_bind()
    exists = text(f"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}')")
    may_make = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    if not connection.scalar(exists):
        if not connection.scalar(may_make):
            raise _must_be_made(str(connection.scalar(text("SELECT current_user"))))
        op.execute(f"""
            DO $$ BEGIN CREATE ROLE {ROLE} NOLOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
        """)
    may_set = text(f"SELECT pg_has_role(current_user, '{ROLE}', 'SET')")
    if not connection.scalar(may_set):
        may_grant = text(f"SELECT pg_has_role(current_user, '{ROLE}', 'MEMBER WITH ADMIN OPTION')")
        if not connection.scalar(may_grant):
            raise _must_be_made(str(connection.scalar(text("SELECT current_user"))))
        op.execute(f"GRANT {ROLE} TO CURRENT_USER WITH SET TRUE, INHERIT FALSE")


def _must_be_made(user: str) -> StartupError:
    return StartupError(
        f"The database's user {user} may not make or take the role {ROLE}, which keeps tenants"
        " apart: have the server's administrator run"
        f" 'CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO \"{user}\"' (the first half only if there"
        " is none), then migrate again."
    )
