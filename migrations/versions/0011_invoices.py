"""Invoices, their lines and numbers, and payments: what is final is refused every change."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import invoice_rules, rules

revision = "0011"
down_revision = "0010"

_TABLES = (
    "billing_profiles",
    "invoice_counters",
    "invoices",
    "invoice_lines",
    "invoice_payments",
    "payment_events",
)
_APPEND_ONLY = ("invoice_payments", "payment_events")
_TOLD = """series, year, serial, number, issued_at, due_at, seller, customer, terms, until_entry_id,
    until_balance_p, left_from_id, opening_p, closing_p, received_p, given_p, charges_p,
    granted_p, carried_in_p, carried_out_p, total_cents, tax_basis_points, tax_cents,
    tax_credit_cents, tax_credit_left_cents, credit_cents, due_cents, hash"""


def upgrade() -> None:
    _billing_profiles()
    _invoice_counters()
    _invoices()
    _invoice_lines()
    _invoice_payments()
    _payment_events()
    _guards()
    for rule in invoice_rules.RULES:
        rules.add(*rule)


def downgrade() -> None:
    rules.drop(*(name for name, _, _ in invoice_rules.RULES))
    for table in reversed(_TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_final, refuse_line, refuse_number, refuse_unnumbered")


def _billing_profiles() -> None:
    op.create_table(
        "billing_profiles",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("legal_name", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("tax_id", sa.String(), nullable=False),
        sa.Column("tax_name", sa.String(), nullable=False),
        sa.Column("tax_basis_points", sa.Integer(), nullable=False),
        sa.Column("reverse_charge_note", sa.String(), nullable=True),
        sa.Column("payment_days", sa.Integer(), nullable=True),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "payment_days BETWEEN 0 AND 365", name=op.f("ck_billing_profiles_payment_days")
        ),
        sa.CheckConstraint(
            "reverse_charge_note IS NULL OR tax_basis_points = 0",
            name=op.f("ck_billing_profiles_reverse_charge"),
        ),
        sa.CheckConstraint(
            "tax_basis_points BETWEEN 0 AND 10000", name=op.f("ck_billing_profiles_tax")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_billing_profiles_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_billing_profiles")),
    )


def _invoice_counters() -> None:
    op.create_table(
        "invoice_counters",
        sa.Column("series", sa.String(), nullable=False),
        sa.Column("year", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("series", "year", name=op.f("pk_invoice_counters")),
    )


def _invoices() -> None:
    op.create_table(
        "invoices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        *_invoice_figures(),
        *_invoice_checks(),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_invoices_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint("number", name=op.f("uq_invoices_number")),
        sa.UniqueConstraint(
            "series", "year", "serial", name=op.f("uq_invoices_series_year_serial")
        ),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_invoices_tenant_id_id")),
        sa.UniqueConstraint("tenant_id", "month", name=op.f("uq_invoices_tenant_id_month")),
    )
    op.create_index(
        "ix_invoices_unfinished",
        "invoices",
        ["month"],
        unique=False,
        postgresql_where=sa.text("state <> 'final'"),
    )


def _invoice_figures() -> list[sa.Column]:
    """What is known of an invoice once it is final."""
    return [
        sa.Column("refused", sa.String(), nullable=True),
        sa.Column("series", sa.String(), nullable=True),
        sa.Column("year", sa.Integer(), nullable=True),
        sa.Column("serial", sa.Integer(), nullable=True),
        sa.Column("number", sa.String(), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "seller", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "customer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("terms", sa.String(), nullable=True),
        sa.Column("until_entry_id", sa.BigInteger(), nullable=True),
        sa.Column("until_balance_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("left_from_id", sa.BigInteger(), nullable=True),
        sa.Column("opening_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("received_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("given_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("closing_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("charges_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("granted_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("carried_in_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("carried_out_p", sa.Numeric(38, 0), nullable=True),
        sa.Column("total_cents", sa.BigInteger(), nullable=True),
        sa.Column("tax_name", sa.String(), nullable=True),
        sa.Column("tax_basis_points", sa.Integer(), nullable=True),
        sa.Column("tax_note", sa.String(), nullable=True),
        sa.Column("tax_cents", sa.BigInteger(), nullable=True),
        sa.Column("tax_credit_cents", sa.BigInteger(), nullable=True),
        sa.Column("tax_credit_left_cents", sa.BigInteger(), nullable=True),
        sa.Column("credit_cents", sa.BigInteger(), nullable=True),
        sa.Column("due_cents", sa.BigInteger(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=True),
    ]


def _invoice_checks() -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(
            f"(state = 'final' AND num_nulls({_TOLD}) = 0)"
            f" OR (state <> 'final' AND num_nonnulls({_TOLD}) = 0)",
            name=op.f("ck_invoices_told_when_final"),
        ),
        sa.CheckConstraint(
            "due_cents >= 0 AND due_cents = CASE terms WHEN 'prepaid' THEN 0 ELSE"
            " total_cents - credit_cents + greatest(tax_cents, 0) - tax_credit_cents END",
            name=op.f("ck_invoices_exact_due"),
        ),
        sa.CheckConstraint(
            "state IN ('open', 'collecting', 'final')", name=op.f("ck_invoices_state")
        ),
        sa.CheckConstraint("terms IN ('prepaid', 'postpaid')", name=op.f("ck_invoices_terms")),
        sa.CheckConstraint("EXTRACT(day FROM month) = 1", name=op.f("ck_invoices_month")),
        sa.CheckConstraint(
            "abs(carried_out_p) < 10000000000", name=op.f("ck_invoices_carries_below_a_cent")
        ),
        sa.CheckConstraint(
            "charges_p - granted_p + carried_in_p"
            " = total_cents::numeric * 10000000000 + carried_out_p",
            name=op.f("ck_invoices_exact_total"),
        ),
        sa.CheckConstraint(
            "closing_p = opening_p + received_p - charges_p", name=op.f("ck_invoices_exact_balance")
        ),
    ]


def _invoice_lines() -> None:
    op.create_table(
        "invoice_lines",
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("section", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("project", sa.String(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("api_key", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("path", sa.String(), nullable=True),
        sa.Column("band", sa.String(), nullable=True),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("quantity", sa.Numeric(38, 0), nullable=True),
        sa.Column("unit", sa.String(), nullable=True),
        sa.Column("rate_p", sa.BigInteger(), nullable=True),
        sa.Column("amount_p", sa.Numeric(38, 0), nullable=False),
        sa.CheckConstraint(
            "section IN ('carried', 'sale', 'granted', 'funds')",
            name=op.f("ck_invoice_lines_section"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "invoice_id"],
            ["invoices.tenant_id", "invoices.id"],
            name=op.f("fk_invoice_lines_tenant_id_invoice_id"),
        ),
        sa.PrimaryKeyConstraint("invoice_id", "position", name=op.f("pk_invoice_lines")),
    )


def _invoice_payments() -> None:
    op.create_table(
        "invoice_payments",
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("tax_cents", sa.BigInteger(), nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "amount_cents > 0 AND tax_cents BETWEEN 0 AND amount_cents",
            name=op.f("ck_invoice_payments_sums"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "invoice_id"],
            ["invoices.tenant_id", "invoices.id"],
            name=op.f("fk_invoice_payments_tenant_id_invoice_id"),
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["ledger_transactions.id"],
            name=op.f("fk_invoice_payments_transaction_id"),
        ),
        sa.PrimaryKeyConstraint("transaction_id", name=op.f("pk_invoice_payments")),
    )
    op.create_index(
        "ix_invoice_payments_invoice_id", "invoice_payments", ["invoice_id"], unique=False
    )


def _payment_events() -> None:
    op.create_table(
        "payment_events",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["ledger_transactions.id"],
            name=op.f("fk_payment_events_transaction_id"),
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_payment_events")),
    )


def _guards() -> None:
    for table in _APPEND_ONLY:
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
    op.execute("""
        CREATE FUNCTION refuse_final() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% refused: a final invoice never changes', TG_OP
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER final_stays BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW
        WHEN (OLD.state = 'final') EXECUTE FUNCTION refuse_final()
    """)
    op.execute("""
        CREATE TRIGGER begins_unfinished BEFORE INSERT ON invoices FOR EACH ROW
        WHEN (NEW.state = 'final') EXECUTE FUNCTION refuse_final()
    """)
    for table in ("invoices", "invoice_lines", "invoice_counters"):
        op.execute(f"""
            CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
    _line_guard()
    _number_guard()


def _line_guard() -> None:
    # The lock waits for who is making the invoice final, and sees what came of it.
    op.execute("""
        CREATE FUNCTION refuse_line() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE line record; found_state text;
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                RAISE EXCEPTION 'UPDATE refused: lines of invoices are never changed'
                    USING ERRCODE = 'restrict_violation';
            ELSIF TG_OP = 'INSERT' THEN
                line := NEW;
            ELSE
                line := OLD;
            END IF;
            SELECT state INTO found_state FROM invoices WHERE id = line.invoice_id FOR SHARE;
            IF found_state = 'final' THEN
                RAISE EXCEPTION '% refused: a final invoice never changes', TG_OP
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN line;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER final_stays BEFORE INSERT OR UPDATE OR DELETE ON invoice_lines FOR EACH ROW
        EXECUTE FUNCTION refuse_line()
    """)


def _number_guard() -> None:
    # Looked at when the transaction ends: the number that was taken is on an invoice.
    op.execute("""
        CREATE FUNCTION refuse_number() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' OR (TG_OP = 'INSERT' AND NEW.last <> 1)
                OR (TG_OP = 'UPDATE' AND (NEW.series, NEW.year, NEW.last)
                    IS DISTINCT FROM (OLD.series, OLD.year, OLD.last + 1))
                OR NOT EXISTS (
                    SELECT FROM invoices
                    WHERE series = NEW.series AND year = NEW.year AND serial = NEW.last
                ) THEN
                RAISE EXCEPTION '% refused: a number is taken by an invoice, one by one', TG_OP
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE CONSTRAINT TRIGGER gapless AFTER INSERT OR UPDATE OR DELETE ON invoice_counters
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse_number()
    """)
    # Taken before it is told, in the same transaction.
    op.execute("""
        CREATE FUNCTION refuse_unnumbered() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.state <> 'collecting' OR NOT EXISTS (
                SELECT FROM invoice_counters
                WHERE series = NEW.series AND year = NEW.year AND last = NEW.serial
            ) THEN
                RAISE EXCEPTION '% refused: % is not the next number', TG_OP, NEW.number
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER numbered BEFORE UPDATE ON invoices FOR EACH ROW
        WHEN (OLD.state <> 'final' AND NEW.state = 'final')
        EXECUTE FUNCTION refuse_unnumbered()
    """)
