"""People, roles, machine tokens, model aliases, idempotent requests."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _keys()
    _people()
    _models()
    op.create_table(
        "given_answers",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_given_answers")),
    )
    op.create_index(op.f("ix_given_answers_created_at"), "given_answers", ["created_at"])


def downgrade() -> None:
    for table in ("given_answers", "models", "memberships", "people"):
        op.drop_table(table)
    # A key that was to end, or to open less than everything, must not come back as more.
    for table in ("api_keys", "admin_keys"):
        op.execute(f"UPDATE {table} SET revoked_at = now() WHERE {_lesser(table)}")
    op.drop_constraint(op.f("ck_admin_keys_role"), "admin_keys")
    for name in ("role", "expires_at", "last_used_at"):
        op.drop_column("admin_keys", name)
    op.drop_constraint(op.f("fk_api_keys_replaced_by_id"), "api_keys")
    op.drop_constraint(op.f("ck_api_keys_scopes"), "api_keys")
    for name in ("scopes", "expires_at", "last_used_at", "replaced_by_id"):
        op.drop_column("api_keys", name)


def _lesser(table: str) -> str:
    lesser = "cardinality(scopes) < 4" if table == "api_keys" else "role <> 'admin'"
    return f"revoked_at IS NULL AND (expires_at IS NOT NULL OR {lesser})"


def _keys() -> None:
    # Keys made before may do what they could do: everything.
    op.add_column(
        "api_keys",
        sa.Column(
            "scopes",
            sa.ARRAY(sa.String()),
            nullable=False,
            server_default="{inference,read,manage,own}",
        ),
    )
    op.alter_column("api_keys", "scopes", server_default=None)
    op.create_check_constraint(
        op.f("ck_api_keys_scopes"),
        "api_keys",
        "scopes <@ ARRAY['inference', 'read', 'manage', 'own']::varchar[]",
    )
    op.add_column("api_keys", sa.Column("replaced_by_id", sa.Uuid()))
    op.create_foreign_key(
        op.f("fk_api_keys_replaced_by_id"), "api_keys", "api_keys", ["replaced_by_id"], ["id"]
    )
    op.add_column(
        "admin_keys", sa.Column("role", sa.String(), nullable=False, server_default="admin")
    )
    op.alter_column("admin_keys", "role", server_default=None)
    op.create_check_constraint(
        op.f("ck_admin_keys_role"), "admin_keys", "role IN ('admin', 'support', 'billing')"
    )
    for table in ("api_keys", "admin_keys"):
        op.add_column(table, sa.Column("expires_at", _MOMENT))
        op.add_column(table, sa.Column("last_used_at", _MOMENT))


def _people() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("email", sa.String()),
        sa.Column("name", sa.String(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_people_issuer_subject")),
    )
    op.create_table(
        "memberships",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid()),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("person_id", sa.Uuid()),
        _created_at(),
        sa.CheckConstraint(
            "CASE WHEN tenant_id IS NULL THEN role IN ('admin', 'support', 'billing')"
            " ELSE role IN ('owner', 'developer', 'viewer') END",
            name=op.f("ck_memberships_role"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_memberships_tenant_id")
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_memberships_person_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memberships")),
        sa.UniqueConstraint(
            "tenant_id",
            "email",
            name=op.f("uq_memberships_tenant_id_email"),
            postgresql_nulls_not_distinct=True,
        ),
        sa.UniqueConstraint(
            "tenant_id", "person_id", name=op.f("uq_memberships_tenant_id_person_id")
        ),
    )
    for name in ("email", "person_id"):
        op.create_index(op.f(f"ix_memberships_{name}"), "memberships", [name])


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("visible", sa.Boolean(), nullable=False),
        sa.Column("alias_of", sa.String()),
        _created_at(),
        sa.CheckConstraint("alias_of <> name", name=op.f("ck_models_alias_of_another")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
    )
    op.create_index(op.f("ix_models_alias_of"), "models", ["alias_of"])


def _created_at() -> sa.Column[object]:
    return sa.Column("created_at", _MOMENT, server_default=sa.text("now()"), nullable=False)
