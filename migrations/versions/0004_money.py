"""Projects; grants, credit and corrections; balances that only entries move; bands of prices."""

import sqlalchemy as sa
from alembic import op

from migrations import first_rules, rules

revision = "0004"
down_revision = "0003"

_LEDGER = "ledger_transactions"
_BANDED = ("holds", "usage_staging", "usage_events")
_OLD_ACCOUNT_KINDS = "kind IN ('tenant', 'revenue', 'funding')"
_ACCOUNT_KINDS = "kind IN ('tenant', 'revenue', 'funding', 'promotion', 'adjustments', 'tax')"
_OLD_LEDGER_KINDS = "kind IN ('top_up', 'charge', 'gpu_time')"
_LEDGER_KINDS = (
    "kind IN ('top_up', 'grant', 'payment', 'charge', 'gpu_time', 'storage', 'commitment',"
    " 'refund', 'credit_note', 'waiver', 'adjustment')"
)
_CORRECTS = (
    "CASE kind WHEN 'refund' THEN corrects_id IS NOT NULL WHEN 'waiver' THEN corrects_id IS NOT"
    " NULL WHEN 'credit_note' THEN true ELSE corrects_id IS NULL END"
)

# A transaction gives back no more than another of the same tenant took. Runs with the account
# locked by the change of its balance, so two at once see each other.
_REFUSE_OVERCORRECTION = """
    CREATE FUNCTION refuse_overcorrection(taken uuid) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE tenants bigint; left_p numeric; granted_left_p numeric;
    BEGIN
        SELECT count(DISTINCT t.tenant_id), -sum(e.amount_p), -sum(e.granted_p)
        INTO tenants, left_p, granted_left_p
        FROM ledger_transactions t
        JOIN ledger_entries e ON e.transaction_id = t.id
        JOIN accounts a ON a.id = e.account_id
        WHERE (t.id = taken OR t.corrects_id = taken) AND a.kind = 'tenant';
        IF tenants <> 1 OR left_p < 0 OR granted_left_p < 0 THEN
            RAISE EXCEPTION 'ledger transaction % cannot be taken back: another tenant''s, or less'
                ' is left', taken
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END $$
"""
# Sequential scans are off because a session keeps the plan that it made while tables were small.
_MOVE_BALANCES = """
    CREATE FUNCTION move_balances() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
    DECLARE bad uuid; foreign_money boolean; corrected uuid[];
    BEGIN
        SELECT transaction_id INTO bad FROM posted
        GROUP BY transaction_id HAVING sum(amount_p) <> 0 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'ledger transaction % does not sum to zero', bad
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        SELECT now.transaction_id INTO bad
        FROM (SELECT transaction_id, count(*) AS entries FROM posted GROUP BY transaction_id) now
        WHERE now.entries <> (
            SELECT count(*) FROM ledger_entries e WHERE e.transaction_id = now.transaction_id
        ) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'ledger transaction % is posted already', bad
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        SELECT bool_or(a.tenant_id <> t.tenant_id),
            array_agg(DISTINCT t.corrects_id) FILTER (WHERE t.corrects_id IS NOT NULL)
        INTO foreign_money, corrected
        FROM posted
        JOIN ledger_transactions t ON t.id = posted.transaction_id
        JOIN accounts a ON a.id = posted.account_id;
        IF foreign_money THEN
            RAISE EXCEPTION 'a ledger transaction moves another tenant''s money'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        UPDATE accounts
        SET balance_p = accounts.balance_p + moved.amount_p,
            granted_p = accounts.granted_p + moved.granted_p
        FROM (
            SELECT account_id, sum(amount_p) AS amount_p, sum(granted_p) AS granted_p
            FROM posted GROUP BY account_id
        ) AS moved
        WHERE accounts.id = moved.account_id;
        PERFORM refuse_overcorrection(taken) FROM unnest(corrected) AS taken;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    _projects()
    _accounts()
    _ledger()
    for table in _BANDED:
        op.add_column(
            table, sa.Column("band", sa.String(), nullable=False, server_default="standard")
        )
        op.alter_column(table, "band", server_default=None)
    _guards()
    op.execute("CREATE SCHEMA IF NOT EXISTS books")
    op.execute("COMMENT ON SCHEMA books IS 'Rules of the books: each view lists what breaks it'")
    for name, told, query in first_rules.RULES:
        rules.add(name, told, query)


def downgrade() -> None:
    """Raises: IntegrityError, when the ledger holds what revision 0003 cannot say."""
    op.execute("DROP SCHEMA books CASCADE")
    op.execute("DROP TRIGGER moves_balances ON ledger_entries")
    for name in ("only_entries_move_balances", "begins_at_zero", "stays", "keeps_its_owner"):
        op.execute(f"DROP TRIGGER {name} ON accounts")
    op.execute("DROP FUNCTION move_balances, refuse_overcorrection, refuse_balance, refuse_owner")
    _old_guard()
    for table in _BANDED:
        op.drop_column(table, "band")
    _old_ledger()
    _old_accounts()
    op.drop_constraint(op.f("fk_api_keys_tenant_id_project_id"), "api_keys")
    op.drop_column("api_keys", "project_id")
    op.drop_table("projects")


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("archived_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_projects_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_projects_tenant_id_name")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_projects_tenant_id_id")),
    )
    op.execute(
        "INSERT INTO projects (id, tenant_id, name, created_at)"
        " SELECT gen_random_uuid(), id, 'default', created_at FROM tenants"
    )
    op.add_column("api_keys", sa.Column("project_id", sa.Uuid()))
    op.execute(
        "UPDATE api_keys SET project_id = projects.id"
        " FROM projects WHERE projects.tenant_id = api_keys.tenant_id"
    )
    op.alter_column("api_keys", "project_id", nullable=False)
    op.create_index(op.f("ix_api_keys_project_id"), "api_keys", ["project_id"])
    op.create_foreign_key(
        op.f("fk_api_keys_tenant_id_project_id"),
        "api_keys",
        "projects",
        ["tenant_id", "project_id"],
        ["tenant_id", "id"],
    )


def _accounts() -> None:
    wide = sa.Numeric(38, 0)
    for name in ("granted_p", "credit_limit_p"):
        op.add_column("accounts", sa.Column(name, wide, nullable=False, server_default="0"))
        op.alter_column("accounts", name, server_default=None)
    op.add_column(
        "accounts", sa.Column("terms", sa.String(), nullable=False, server_default="prepaid")
    )
    op.alter_column("accounts", "terms", server_default=None)
    _replace_checks(
        "accounts",
        kind=_ACCOUNT_KINDS,
        not_overspent="kind <> 'tenant' OR balance_p + credit_limit_p - held_p >= 0",
    )
    _add_checks(
        "accounts",
        granted_not_negative="granted_p >= 0",
        terms="terms IN ('prepaid', 'postpaid')",
        credit_is_postpaid="credit_limit_p >= 0 AND (terms = 'postpaid' OR credit_limit_p = 0)",
    )
    # Where grants come from, where adjustments go, and what is collected for the state.
    op.execute(
        "INSERT INTO accounts (id, kind, balance_p, granted_p, held_p, credit_limit_p, terms)"
        " SELECT gen_random_uuid(), kind, 0, 0, 0, 0, 'prepaid'"
        " FROM unnest(ARRAY['promotion', 'adjustments', 'tax']) AS kind"
    )


def _old_accounts() -> None:
    op.execute("DELETE FROM accounts WHERE kind IN ('promotion', 'adjustments', 'tax')")
    for name in ("granted_not_negative", "terms", "credit_is_postpaid"):
        op.drop_constraint(op.f(f"ck_accounts_{name}"), "accounts")
    _replace_checks(
        "accounts",
        kind=_OLD_ACCOUNT_KINDS,
        not_overspent="kind <> 'tenant' OR balance_p - held_p >= 0",
    )
    for name in ("granted_p", "credit_limit_p", "terms"):
        op.drop_column("accounts", name)


def _ledger() -> None:
    """Change the ledger without reading it: what is asked of old rows, revision 0013 proves."""
    op.add_column(_LEDGER, sa.Column("corrects_id", sa.Uuid()))
    op.create_index(
        "ix_ledger_transactions_corrects_id",
        _LEDGER,
        ["corrects_id"],
        postgresql_where=sa.text("corrects_id IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("fk_ledger_transactions_corrects_id"),
        _LEDGER,
        _LEDGER,
        ["corrects_id"],
        ["id"],
        postgresql_not_valid=True,
    )
    op.drop_constraint(op.f("ck_ledger_transactions_kind"), _LEDGER)
    _add_checks(
        _LEDGER,
        not_valid=True,
        kind=_LEDGER_KINDS,
        told="reason <> '' AND author <> ''",
        corrects=_CORRECTS,
    )
    op.add_column(
        "ledger_entries",
        sa.Column("granted_p", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.alter_column("ledger_entries", "granted_p", server_default=None)
    _add_checks(
        "ledger_entries",
        not_valid=True,
        granted_is_part="granted_p BETWEEN least(amount_p, 0) AND greatest(amount_p, 0)",
    )


def _old_ledger() -> None:
    op.drop_constraint(op.f("ck_ledger_entries_granted_is_part"), "ledger_entries")
    op.drop_column("ledger_entries", "granted_p")
    for name in ("told", "corrects"):
        op.drop_constraint(op.f(f"ck_ledger_transactions_{name}"), _LEDGER)
    _replace_checks(_LEDGER, kind=_OLD_LEDGER_KINDS)
    op.drop_constraint(op.f("fk_ledger_transactions_corrects_id"), _LEDGER)
    op.drop_column(_LEDGER, "corrects_id")


def _replace_checks(table: str, **checks: str) -> None:
    for name in checks:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    _add_checks(table, **checks)


def _add_checks(table: str, *, not_valid: bool = False, **checks: str) -> None:
    for name, check in checks.items():
        op.create_check_constraint(
            op.f(f"ck_{table}_{name}"), table, check, postgresql_not_valid=not_valid
        )


def _guards() -> None:
    op.execute("DROP TRIGGER balanced ON ledger_entries")
    op.execute("DROP FUNCTION refuse_unbalanced")
    op.execute(_REFUSE_OVERCORRECTION)
    op.execute(_MOVE_BALANCES)
    op.execute("""
        CREATE TRIGGER moves_balances AFTER INSERT ON ledger_entries
        REFERENCING NEW TABLE AS posted
        FOR EACH STATEMENT EXECUTE FUNCTION move_balances()
    """)
    op.execute("""
        CREATE FUNCTION refuse_balance() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF pg_trigger_depth() = 1 THEN
                RAISE EXCEPTION '% refused: only ledger entries move balances', TG_OP
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER only_entries_move_balances BEFORE UPDATE ON accounts FOR EACH ROW
        WHEN (OLD.balance_p <> NEW.balance_p OR OLD.granted_p <> NEW.granted_p)
        EXECUTE FUNCTION refuse_balance()
    """)
    op.execute("""
        CREATE TRIGGER begins_at_zero BEFORE INSERT ON accounts FOR EACH ROW
        WHEN (NEW.balance_p <> 0 OR NEW.granted_p <> 0)
        EXECUTE FUNCTION refuse_balance()
    """)
    op.execute("""
        CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON accounts
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)

    op.execute("""
        CREATE FUNCTION refuse_owner() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% refused: an account keeps its owner', TG_OP
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER keeps_its_owner BEFORE UPDATE OF id, kind, tenant_id ON accounts
        FOR EACH ROW WHEN ((OLD.id, OLD.kind, OLD.tenant_id)
            IS DISTINCT FROM (NEW.id, NEW.kind, NEW.tenant_id))
        EXECUTE FUNCTION refuse_owner()
    """)


def _old_guard() -> None:
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
